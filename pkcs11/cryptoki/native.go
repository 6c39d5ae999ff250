//go:build cgo

package cryptoki

/*
#cgo linux LDFLAGS: -ldl
#cgo noescape holdfast_sign
#cgo nocallback holdfast_sign
#cgo noescape holdfast_login
#cgo nocallback holdfast_login

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

// The part of CK_FUNCTION_LIST that every version of PKCS#11 has, and
// CK_MECHANISM.
typedef struct { unsigned char version[2]; void *fn[68]; } ck_list;
typedef struct { ck_ulong mechanism; void *param; ck_ulong param_len; } ck_mechanism;

#ifdef _WIN32
#pragma pack(pop)
#endif

enum { FN_LOGIN = 18, FN_SIGN_INIT = 42, FN_SIGN = 43 };

typedef ck_ulong (*ck_login)(ck_ulong, ck_ulong, const void *, ck_ulong);
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
		if ((rv = ((ck_login)l->fn[FN_LOGIN])(session, 2, pin, pin_len)) != 0)
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
// package makes at a price: it asks for each signature's length first, and its
// C_Login leaves copies of the PIN in memory.
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
