//go:build cgo

package cryptoki

/*
#cgo linux LDFLAGS: -ldl
#cgo noescape holdfast_sign
#cgo nocallback holdfast_sign
#cgo noescape holdfast_login
#cgo nocallback holdfast_login
#cgo noescape holdfast_attributes
#cgo nocallback holdfast_attributes

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <windows.h>
#pragma pack(push, 1)
#else
#include <dlfcn.h>
#endif

typedef unsigned long ck_ulong;

// The part of CK_FUNCTION_LIST that every version of PKCS#11 has,
// CK_MECHANISM and CK_ATTRIBUTE.
typedef struct { unsigned char version[2]; void *fn[68]; } ck_list;
typedef struct { ck_ulong mechanism; void *param; ck_ulong param_len; } ck_mechanism;
typedef struct { ck_ulong type; void *value; ck_ulong len; } ck_attribute;

#ifdef _WIN32
#pragma pack(pop)
#endif

enum { FN_LOGIN = 18, FN_GET_ATTRIBUTE_VALUE = 24, FN_SIGN_INIT = 42, FN_SIGN = 43 };
enum { MAX_ATTRIBUTES = 8 };
enum { USER_ALREADY_LOGGED_IN = 0x100 };

typedef ck_ulong (*ck_login)(ck_ulong, ck_ulong, const void *, ck_ulong);
typedef ck_ulong (*ck_get_attribute_value)(ck_ulong, ck_ulong, ck_attribute *, ck_ulong);
typedef ck_ulong (*ck_sign_init)(ck_ulong, ck_mechanism *, ck_ulong);
typedef ck_ulong (*ck_sign)(ck_ulong, const void *, ck_ulong, void *, ck_ulong *);

// holdfast_open maps the module. It returns 1 and in err the loader's own words
// if that fails, 2 if the library has no C_GetFunctionList.
static int holdfast_open(const char *path, char *err, size_t n)
{
#ifdef _WIN32
	HMODULE h = LoadLibraryExA(path, NULL, LOAD_WITH_ALTERED_SEARCH_PATH);
	if (h == NULL) {
		snprintf(err, n, "LoadLibrary: error %lu", (unsigned long)GetLastError());
		return 1;
	}
	if (GetProcAddress(h, "C_GetFunctionList") == NULL) {
		FreeLibrary(h);
		return 2;
	}
#else
	void *h = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
	if (h == NULL) {
		const char *e = dlerror();
		snprintf(err, n, "%s", e ? e : "unknown error");
		return 1;
	}
	if (dlsym(h, "C_GetFunctionList") == NULL) {
		dlclose(h);
		return 2;
	}
#endif
	return 0;
}

static ck_ulong holdfast_login(void *list, ck_ulong session, ck_ulong user, const void *pin, ck_ulong len)
{
	return ((ck_login)((ck_list *)list)->fn[FN_LOGIN])(session, user, pin, len);
}

// holdfast_attributes asks for n attributes in one go. Their values go to buf,
// one after the other, each into as many bytes as lens says; lens then says
// what the module did. With a NULL buf it asks for the lengths alone.
static ck_ulong holdfast_attributes(void *list, ck_ulong session, ck_ulong object, const ck_ulong *types, ck_ulong *lens, int n, unsigned char *buf)
{
	ck_attribute a[MAX_ATTRIBUTES];
	ck_ulong rv;
	int i;
	for (i = 0; i < n; i++) {
		a[i].type = types[i];
		a[i].value = buf;
		a[i].len = lens[i];
		if (buf != NULL)
			buf += lens[i];
	}
	rv = ((ck_get_attribute_value)((ck_list *)list)->fn[FN_GET_ATTRIBUTE_VALUE])(session, object, a, (ck_ulong)n);
	for (i = 0; i < n; i++)
		lens[i] = a[i].len;
	return rv;
}

// holdfast_sign signs in one go, without asking for the length first. With
// context set it logs in between, with pin or, when that is NULL, at the token.
static ck_ulong holdfast_sign(void *list, ck_ulong session, ck_ulong key, ck_ulong mechanism, void *param, ck_ulong param_len,
	int context, const void *pin, ck_ulong pin_len,
	const void *data, ck_ulong len, void *out, ck_ulong *out_len, int *stage)
{
	ck_list *l = list;
	ck_mechanism m = { mechanism, param, param_len };
	ck_ulong rv;
	*stage = FN_SIGN_INIT;
	if ((rv = ((ck_sign_init)l->fn[FN_SIGN_INIT])(session, &m, key)) != 0)
		return rv;
	if (context) {
		*stage = FN_LOGIN;
		rv = ((ck_login)l->fn[FN_LOGIN])(session, 2, pin, pin_len);
		if (rv != 0 && rv != USER_ALREADY_LOGGED_IN) // a needless PIN is no reason not to sign
			return rv;
	}
	*stage = FN_SIGN;
	return ((ck_sign)l->fn[FN_SIGN])(session, data, len, out, out_len);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	p11 "github.com/miekg/pkcs11"
)

// functions is a module's CK_FUNCTION_LIST, for the calls that the wrapper
// package makes at a price: it asks for the length of each signature and of
// each attribute first, and its C_Login leaves copies of the PIN in memory.
type functions struct{ list unsafe.Pointer }

// openLibrary maps the module into the process, where it stays: unloading
// modules that started threads or registered exit handlers crashes programs.
func openLibrary(path string) (*p11.Ctx, functions, error) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	var text [512]C.char
	switch C.holdfast_open(p, &text[0], C.size_t(len(text))) {
	case 1:
		return nil, functions{}, loaderError(C.GoString(&text[0]))
	case 2:
		return nil, functions{}, errNoFunctionList
	}
	ctx := p11.New(path)
	if ctx == nil {
		return nil, functions{}, errNoFunctionList
	}
	// The wrapper's own list, not another: p11-kit's proxy makes a new one at
	// each C_GetFunctionList, with sessions of its own. This is struct ctx of
	// the wrapper's pkcs11.go; TestListIsTheWrappers guards it.
	inner := (*struct {
		c *struct{ handle, list unsafe.Pointer }
	})(unsafe.Pointer(ctx)).c
	if inner.list == nil {
		return nil, functions{}, errors.New("C_GetFunctionList returned nothing")
	}
	return ctx, functions{inner.list}, nil
}

// login calls C_Login with pin, or without one when it is nil: the token then
// asks for it by its own means.
func (f functions) login(s p11.SessionHandle, user uint, pin []byte) error {
	rv := C.holdfast_login(f.list, C.ck_ulong(s), C.ck_ulong(user), unsafe.Pointer(unsafe.SliceData(pin)), C.ck_ulong(len(pin)))
	runtime.KeepAlive(pin)
	return returned("C_Login", uint(rv))
}

// maxAttributes bounds the kinds of one use of attributes.
const maxAttributes = C.MAX_ATTRIBUTES

// attributes asks for several attributes of an object at once. The value of
// one that must be asked for alone is nil: those that the object does not have
// or show, those that are longer than usual, and those that the module did not
// come to. An error is what the call returned if none of its values counts.
func (f functions) attributes(s p11.SessionHandle, h p11.ObjectHandle, kinds []uint) ([][]byte, error) {
	var types, lens [maxAttributes]C.ck_ulong
	total := 0
	for i, kind := range kinds {
		types[i], lens[i] = C.ck_ulong(kind), C.ck_ulong(usualSize(kind))
		total += usualSize(kind)
	}
	buf := make([]byte, total)
	rv := uint(C.holdfast_attributes(f.list, C.ck_ulong(s), C.ck_ulong(h), &types[0], &lens[0], C.int(len(kinds)), (*C.uchar)(unsafe.SliceData(buf))))
	switch rv {
	case p11.CKR_OK, p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_SENSITIVE, p11.CKR_BUFFER_TOO_SMALL:
	default:
		return nil, returned("C_GetAttributeValue", rv)
	}
	values := make([][]byte, len(kinds))
	for i, kind := range kinds {
		size := usualSize(kind)
		if n := lens[i]; n < C.ck_ulong(size) {
			values[i] = buf[:n:n]
		}
		buf = buf[size:]
	}
	return values, nil
}

// maxAttribute is more than any attribute has; a module that says so lies.
const maxAttribute = 1 << 20

// attribute asks for one attribute, its length first. ok is false if the object
// does not have or show it.
func (f functions) attribute(s p11.SessionHandle, h p11.ObjectHandle, kind uint) (value []byte, ok bool, err error) {
	t := C.ck_ulong(kind)
	var n C.ck_ulong
	if rv := C.holdfast_attributes(f.list, C.ck_ulong(s), C.ck_ulong(h), &t, &n, 1, nil); rv != 0 {
		return nil, false, returned("C_GetAttributeValue", uint(rv))
	}
	if n > maxAttribute {
		return nil, false, nil
	}
	if n == 0 {
		return []byte{}, true, nil
	}
	value = make([]byte, n)
	if rv := C.holdfast_attributes(f.list, C.ck_ulong(s), C.ck_ulong(h), &t, &n, 1, (*C.uchar)(unsafe.SliceData(value))); rv != 0 {
		return nil, false, returned("C_GetAttributeValue", uint(rv))
	}
	if n > C.ck_ulong(len(value)) {
		return nil, false, nil
	}
	return value[:n], true, nil
}

// usualSize is more than a value of the kind mostly has: a length that is left
// as it was tells that the module did not come to the attribute.
func usualSize(kind uint) int {
	switch kind {
	case p11.CKA_VALUE:
		return 4 << 10
	case p11.CKA_MODULUS:
		return 1<<10 + 1
	case p11.CKA_LABEL, p11.CKA_ID, p11.CKA_EC_PARAMS, p11.CKA_EC_POINT:
		return 256
	}
	return 16 // a CK_BBOOL, a CK_ULONG, an RSA key's exponent
}

// A mechanism is a CK_MECHANISM whose parameter holds no pointer.
type mechanism struct {
	id    uint
	param []byte
}

// maxSignature is that of RSA-16384.
const maxSignature = 2048

// signing is one use of holdfast_sign.
type signing struct {
	session p11.SessionHandle
	key     p11.ObjectHandle
	mech    mechanism
	context bool   // C_Login(CKU_CONTEXT_SPECIFIC) in between
	pin     []byte // nil: at the token
	data    []byte
	out     []byte // of maxSignature bytes
}

// sign returns a slice of out.
func (f functions) sign(s signing) ([]byte, error) {
	n := C.ck_ulong(len(s.out))
	var stage, context C.int
	if s.context {
		context = 1
	}
	data := s.data
	if len(data) == 0 {
		data = make([]byte, 1) // some modules refuse NULL
	}
	rv := C.holdfast_sign(f.list, C.ck_ulong(s.session), C.ck_ulong(s.key),
		C.ck_ulong(s.mech.id), unsafe.Pointer(unsafe.SliceData(s.mech.param)), C.ck_ulong(len(s.mech.param)),
		context, unsafe.Pointer(unsafe.SliceData(s.pin)), C.ck_ulong(len(s.pin)),
		unsafe.Pointer(unsafe.SliceData(data)), C.ck_ulong(len(s.data)),
		unsafe.Pointer(unsafe.SliceData(s.out)), &n, &stage)
	if rv == 0 {
		if n == 0 || int(n) > len(s.out) {
			return nil, fmt.Errorf("C_Sign returned %d bytes", uint(n))
		}
		return s.out[:n], nil
	}
	call := map[C.int]string{C.FN_SIGN_INIT: "C_SignInit", C.FN_LOGIN: "C_Login", C.FN_SIGN: "C_Sign"}[stage]
	return nil, returned(call, uint(rv))
}
