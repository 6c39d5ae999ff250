//go:build cgo

package cryptoki

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// A Module is a PKCS#11 module loaded into this process. It is safe for
// concurrent use.
type Module struct {
	lib    *library
	closed atomic.Bool
}

// A library is what all Modules of one file share: PKCS#11 knows a process,
// not its parts, so there is one C_Initialize, and one login to each token.
type library struct {
	path string // real
	ctx  *p11.Ctx
	fn   functions

	mu      sync.Mutex
	refs    int  // Modules and Keys
	foreign bool // initialised by someone else, so not ours to finalise
	info    pkcs11.Library
	tokens  map[string]*token // those in use, by place
	refused map[refusal]bool  // PINs not to present again
	lost    atomic.Bool       // C_Initialize was undone behind our back
}

// libraries is global because initialisation is: it belongs to the process.
var libraries = struct {
	sync.Mutex
	byPath map[string]*library
}{byPath: map[string]*library{}}

// Load loads the module at path and initialises it, or shares the one that is
// loaded already: a file has one C_Initialize whatever links lead to it, and a
// module that another part of the process has initialised is used and never
// finalised. Errors wrap pkcs11.ErrModuleNotFound or pkcs11.ErrModuleInvalid
// and say what the loader said.
func Load(path string) (*Module, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return nil, notThere(path, err)
	}
	libraries.Lock()
	defer libraries.Unlock()
	l := libraries.byPath[real]
	if l == nil {
		if l, err = newLibrary(real); err != nil {
			return nil, err
		}
		libraries.byPath[real] = l
	}
	if l.refs == 0 || l.lost.Load() {
		if err := l.initialize(); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	l.refs++
	return &Module{lib: l}, nil
}

func newLibrary(real string) (*library, error) {
	if err := checkWhole(real); err != nil {
		return nil, explainLoader(real, err)
	}
	ctx, fn, err := openLibrary(real)
	if err != nil {
		return nil, explainLoader(real, err)
	}
	return &library{path: real, ctx: ctx, fn: fn, tokens: map[string]*token{}, refused: map[refusal]bool{}}, nil
}

func (l *library) initialize() error {
	err := failed("C_Initialize", l.ctx.Initialize())
	switch codeOf(err) {
	case p11.CKR_CRYPTOKI_ALREADY_INITIALIZED:
		l.foreign, err = true, nil
	case p11.CKR_OK:
		l.foreign = false
	case p11.CKR_CANT_LOCK:
		return signer.WithHint(fmt.Errorf("%w: it cannot be used by several threads: %w", pkcs11.ErrModuleInvalid, err), "use a newer version of the module")
	}
	if err != nil {
		return signer.WithHint(fmt.Errorf("%w: %w", pkcs11.ErrModuleFailed, err),
			"check the module's configuration file and environment (SOFTHSM2_CONF for SoftHSM) and whether this user may read them")
	}
	info, err := l.ctx.GetInfo()
	if err != nil {
		l.finalize()
		return fmt.Errorf("%w: %w", pkcs11.ErrModuleFailed, failed("C_GetInfo", err))
	}
	if l.info.Path == "" { // else it is in use, and still true
		l.info = pkcs11.Library{
			Path: l.path, Manufacturer: trim(info.ManufacturerID), Description: trim(info.LibraryDescription),
			Version:  fmt.Sprintf("%d.%d", info.LibraryVersion.Major, info.LibraryVersion.Minor),
			Cryptoki: fmt.Sprintf("%d.%d", info.CryptokiVersion.Major, info.CryptokiVersion.Minor),
		}
	}
	l.lost.Store(false)
	return nil
}

func (l *library) finalize() error {
	if l.foreign {
		return nil
	}
	return failed("C_Finalize", l.ctx.Finalize())
}

func (l *library) retain() {
	libraries.Lock()
	defer libraries.Unlock()
	l.refs++
}

func (l *library) release() error {
	libraries.Lock()
	defer libraries.Unlock()
	if l.refs--; l.refs > 0 {
		return nil
	}
	return l.finalize()
}

// check returns an error once the library is of no more use to this process.
func (l *library) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.lost.Load() {
		return lasting(&CallError{"C_GetInfo", p11.CKR_CRYPTOKI_NOT_INITIALIZED})
	}
	return nil
}

// note looks for the end of the library in an error and returns the error.
func (l *library) note(err error) error {
	if classify(err) == failModule {
		l.lost.Store(true)
	}
	return err
}

// Close lets go of the module. It is finalised when its last user, Module or
// Key, closes; keys stay usable until they are closed themselves.
func (m *Module) Close() error {
	if m.closed.Swap(true) {
		return nil
	}
	return m.lib.release()
}

// Info describes the module.
func (m *Module) Info() pkcs11.Library { return m.lib.info }

// Health asks the module for its slots and the tokens in use for themselves.
// It returns nil while they answer, and an error that wraps
// pkcs11.ErrModuleFailed if only another process can go on.
func (m *Module) Health(ctx context.Context) error {
	_, _, err := m.lib.enumerate(ctx)
	return err
}

// Reset closes the module's idle sessions and forgets logins. Keys stay open:
// the next signature logs in again and finds its key again.
func (m *Module) Reset() {
	m.lib.mu.Lock()
	var tokens []*token
	for _, t := range m.lib.tokens {
		tokens = append(tokens, t)
	}
	m.lib.mu.Unlock()
	for _, t := range tokens {
		t.reset(t.generation())
	}
}
