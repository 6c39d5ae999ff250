package pkcs11

import (
	"fmt"
	"strconv"
)

// A Token describes a token and the slot it is in. Texts are without the
// padding that PKCS#11 gives them.
type Token struct {
	Label        string
	Manufacturer string
	Model        string
	Serial       string

	SlotID           uint64
	SlotDescription  string
	SlotManufacturer string

	// LoginRequired: private objects and their use need a PIN.
	LoginRequired bool
	// ProtectedAuthenticationPath: the PIN is typed at the token or its
	// reader, never in this program.
	ProtectedAuthenticationPath bool
	// UserPINInitialized is false for a token no user can log in to yet.
	UserPINInitialized bool
	// UserPINCountLow: a wrong PIN was given since the last right one.
	UserPINCountLow bool
	// UserPINFinalTry: one more wrong PIN locks the token.
	UserPINFinalTry bool
	// UserPINLocked: the token takes no PIN any more.
	UserPINLocked bool
	// UserPINToBeChanged: the PIN has expired or is the initial one.
	UserPINToBeChanged bool
	// WriteProtected: nothing can be generated or stored.
	WriteProtected bool

	// Sessions and MaxSessions count this program's sessions; zero when the
	// token does not tell, or sets no limit.
	Sessions, MaxSessions uint64
}

// A Library describes a module, as C_GetInfo does.
type Library struct {
	Path         string // the file's real path
	Manufacturer string
	Description  string
	// Version and Cryptoki are the library's and the interface's versions,
	// "2.6".
	Version, Cryptoki string
}

// URI returns the URI that names the token by all that lasts: label, model,
// manufacturer and serial number, not its slot.
func (t Token) URI() *URI {
	return (&URI{}).
		With(AttrModel, t.Model).
		With(AttrManufacturer, t.Manufacturer).
		With(AttrSerial, t.Serial).
		With(AttrToken, t.Label)
}

// String names the token for people.
func (t Token) String() string {
	return fmt.Sprintf("token %q (serial %s, slot %s)", t.Label, t.Serial, strconv.FormatUint(t.SlotID, 10))
}
