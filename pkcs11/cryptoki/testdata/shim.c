// A PKCS#11 module in front of another one (SHIM_MODULE), for tests. It writes
// the names of the calls that pass to the file SHIM_LOG, and misbehaves as
// SHIM says, a list of words:
//
//	final-try      every token is at the user PIN's last try
//	locked         every token's user PIN is locked
//	pinpad         tokens take the PIN by their own means, and know it
//	no-digests     no mechanism signs a digest
//	der            ECDSA signatures come as ASN.1
//	logged-in      a PIN for one signature is taken, and called needless
//	long           signatures have a byte too many
//	hide-attribute=TYPE          C_GetAttributeValue refuses that one
//	sessions=N     no more than N sessions at a time
//	fail=CALL:CODE:COUNT         CALL returns CODE, COUNT times in all
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long ulong_t;
typedef struct { unsigned char version[2]; void *fn[68]; } list_t;
typedef struct { ulong_t type; void *value; ulong_t len; } attribute_t;

enum {
	INITIALIZE = 0, GET_FUNCTION_LIST = 3, GET_TOKEN_INFO = 6, GET_MECHANISM_LIST = 7, OPEN_SESSION = 12, CLOSE_SESSION = 13,
	LOGIN = 18, GET_ATTRIBUTE_VALUE = 24, FIND_OBJECTS_INIT = 26, SIGN_INIT = 42, SIGN = 43,
};

static list_t list, *real;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *word(const char *name)
{
	const char *all = getenv("SHIM");
	const char *at = all ? strstr(all, name) : NULL;
	return at ? at + strlen(name) : NULL;
}

// pass logs a call and returns the code it shall fail with, or 0.
static ulong_t pass(const char *call)
{
	static char last[256];
	static int done;
	ulong_t code = 0;
	pthread_mutex_lock(&lock);
	const char *path = getenv("SHIM_LOG");
	FILE *f = path ? fopen(path, "a") : NULL;
	if (f) {
		fprintf(f, "%s\n", call);
		fclose(f);
	}
	const char *what = word("fail=");
	if (!what)
		what = "";
	if (strncmp(what, last, sizeof(last) - 1) != 0) {
		strncpy(last, what, sizeof(last) - 1);
		done = 0;
	}
	char name[64];
	ulong_t c;
	int count;
	if (sscanf(what, "%63[^:]:%lx:%d", name, &c, &count) == 3 && strcmp(name, call) == 0 && done < count) {
		done++;
		code = c;
	}
	pthread_mutex_unlock(&lock);
	return code;
}

#define CALL(i, args, ...) (((ulong_t(*) args)real->fn[i])(__VA_ARGS__))

static ulong_t initialize(void *args)
{
	ulong_t e = pass("C_Initialize");
	return e ? e : CALL(INITIALIZE, (void *), args);
}

static ulong_t token_info(ulong_t slot, char *info)
{
	ulong_t e = pass("C_GetTokenInfo");
	if (e || (e = CALL(GET_TOKEN_INFO, (ulong_t, char *), slot, info)) != 0)
		return e;
	ulong_t *flags = (ulong_t *)(info + 96);
	if (word("final-try"))
		*flags |= 0x20000;
	if (word("locked"))
		*flags |= 0x40000;
	if (word("pinpad"))
		*flags |= 0x100;
	return 0;
}

static ulong_t mechanisms(ulong_t slot, ulong_t *mechs, ulong_t *count)
{
	ulong_t e = CALL(GET_MECHANISM_LIST, (ulong_t, ulong_t *, ulong_t *), slot, mechs, count);
	if (e == 0 && mechs && word("no-digests"))
		for (ulong_t i = 0; i < *count; i++)
			if (mechs[i] == 0x1 || mechs[i] == 0xd || mechs[i] == 0x1041)
				mechs[i] = 0x80000000;
	return e;
}

static int sessions; // guarded by lock

static ulong_t open_session(ulong_t slot, ulong_t flags, void *app, void *notify, ulong_t *session)
{
	ulong_t e = pass("C_OpenSession");
	if (e)
		return e;
	const char *most = word("sessions=");
	pthread_mutex_lock(&lock);
	e = most && sessions >= atoi(most) ? 0xb1 : 0;
	if (!e && (e = CALL(OPEN_SESSION, (ulong_t, ulong_t, void *, void *, ulong_t *), slot, flags, app, notify, session)) == 0)
		sessions++;
	pthread_mutex_unlock(&lock);
	return e;
}

static ulong_t close_session(ulong_t session)
{
	ulong_t e = CALL(CLOSE_SESSION, (ulong_t), session);
	pthread_mutex_lock(&lock);
	if (e == 0)
		sessions--;
	pthread_mutex_unlock(&lock);
	return e;
}

static ulong_t login(ulong_t session, ulong_t user, const char *pin, ulong_t len)
{
	ulong_t e = pass("C_Login");
	if (e)
		return e;
	if (word("pinpad") && !pin) {
		pin = "Ge-heim";
		len = 7;
	}
	e = CALL(LOGIN, (ulong_t, ulong_t, const char *, ulong_t), session, user, pin, len);
	return e == 0 && user == 2 && word("logged-in") ? 0x100 : e;
}

static ulong_t attributes(ulong_t session, ulong_t object, attribute_t *a, ulong_t n)
{
	const char *hidden = word("hide-attribute=");
	for (ulong_t i = 0; hidden && i < n; i++)
		if (a[i].type == strtoul(hidden, NULL, 16))
			return 0x12;
	return CALL(GET_ATTRIBUTE_VALUE, (ulong_t, ulong_t, attribute_t *, ulong_t), session, object, a, n);
}

static ulong_t find(ulong_t session, void *a, ulong_t n)
{
	ulong_t e = pass("C_FindObjectsInit");
	return e ? e : CALL(FIND_OBJECTS_INIT, (ulong_t, void *, ulong_t), session, a, n);
}

static ulong_t sign_init(ulong_t session, void *mechanism, ulong_t key)
{
	ulong_t e = pass("C_SignInit");
	return e ? e : CALL(SIGN_INIT, (ulong_t, void *, ulong_t), session, mechanism, key);
}

static int integer(unsigned char *out, const unsigned char *n, int len)
{
	while (len > 1 && *n == 0)
		n++, len--;
	int pad = *n & 0x80 ? 1 : 0;
	out[0] = 2;
	out[1] = len + pad;
	out[2] = 0;
	memcpy(out + 2 + pad, n, len);
	return 2 + pad + len;
}

static ulong_t sign(ulong_t session, void *data, ulong_t len, unsigned char *out, ulong_t *out_len)
{
	ulong_t e = pass("C_Sign");
	if (e || (e = CALL(SIGN, (ulong_t, void *, ulong_t, unsigned char *, ulong_t *), session, data, len, out, out_len)) != 0)
		return e;
	if (word("long") && out)
		out[(*out_len)++] = 0;
	if (word("der") && out && *out_len == 64) {
		unsigned char der[80];
		int n = 2 + integer(der + 2, out, 32);
		n += integer(der + n, out + 32, 32);
		der[0] = 0x30;
		der[1] = n - 2;
		memcpy(out, der, n);
		*out_len = n;
	}
	return 0;
}

ulong_t C_GetFunctionList(list_t **out)
{
	pass("C_GetFunctionList");
	void *h = dlopen(getenv("SHIM_MODULE"), RTLD_NOW);
	ulong_t (*get)(list_t **) = h ? dlsym(h, "C_GetFunctionList") : NULL;
	if (!get || get(&real) != 0)
		return 5;
	list = *real;
	list.fn[INITIALIZE] = initialize;
	list.fn[GET_FUNCTION_LIST] = C_GetFunctionList;
	list.fn[GET_TOKEN_INFO] = token_info;
	list.fn[GET_MECHANISM_LIST] = mechanisms;
	list.fn[OPEN_SESSION] = open_session;
	list.fn[CLOSE_SESSION] = close_session;
	list.fn[LOGIN] = login;
	list.fn[GET_ATTRIBUTE_VALUE] = attributes;
	list.fn[FIND_OBJECTS_INIT] = find;
	list.fn[SIGN_INIT] = sign_init;
	list.fn[SIGN] = sign;
	*out = &list;
	return 0;
}
