/*
 * A PKCS#11 module that misbehaves on demand, for tests. It wraps a real one,
 * forwards every call of PKCS#11 2.40 and, at the calls a control file names,
 * does what bad modules and bad days do.
 *
 *   gcc -shared -fPIC -O1 -o faulty.so faulty.c -ldl -lpthread
 *
 * Environment:
 *   FAULTY_MODULE  the real module
 *   FAULTY_DIR     a directory of the test's: "faults" is read at every call,
 *                  "log" is appended to, "counts" holds the call counters,
 *                  which go on counting in the next process
 *
 * Lines of "faults":  FUNCTION WHEN WHAT [ARGUMENT]
 *   FUNCTION  C_Sign, or * for all of them
 *   WHEN      3 (the third call), 3-5, 3- or *
 *   WHAT      hang [ms]        before the call; for ever without an argument
 *             segv, abort      the signal
 *             exit [code]      _exit
 *             return CKR       instead of the call: a name or a number
 *             fail CKR         after the call, whose effect stays
 *             logout           C_Logout behind the caller's back, then the call
 *             removed          the token is out: no slots, dead sessions
 *             short, der       r||s without leading zeros; as an ECDSA-Sig-Value
 *             flip             a wrong signature
 *             length N         a false length of what was returned
 *             print N          N bytes on stdout and on stderr
 *             fork             a child that lives for ten minutes
 *
 * Lines of "log":  PID FUNCTION NUMBER RESULT; C_Login adds user=N and, for a
 * PIN that was presented, pin. The PIN itself is never written.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "functions.h"

static struct function_list *real;

enum { REMOVED = 0x32, BAD_SLOT = 0x03, BROKEN = 0x05 };

static W code(const char *s)
{
	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
		if (!strcmp(codes[i].name, s))
			return codes[i].value;
	return strtoul(s, NULL, 0);
}

static W forward(int fn, const W *a)
{
	W (*f)(W, W, W, W, W, W, W, W) = (W (*)(W, W, W, W, W, W, W, W))real->f[fn];
	return f(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
}

static int open_in(const char *name, int flags)
{
	char path[4096];
	const char *dir = getenv("FAULTY_DIR");
	if (!dir)
		return -1;
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return open(path, flags | O_CLOEXEC, 0600);
}

static long counted(int fn)
{
	static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
	static long *shared, private[COUNT];
	pthread_mutex_lock(&mu);
	if (!shared) {
		int fd = open_in("counts", O_RDWR | O_CREAT);
		shared = private;
		if (fd >= 0 && !ftruncate(fd, sizeof private)) {
			void *p = mmap(NULL, sizeof private, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
			if (p != MAP_FAILED)
				shared = p;
		}
		if (fd >= 0)
			close(fd);
	}
	pthread_mutex_unlock(&mu);
	return __sync_add_and_fetch(&shared[fn], 1);
}

static void record(int fn, long n, const W *a, W rv)
{
	static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
	static int fd = -2;
	char line[160];
	int len;
	pthread_mutex_lock(&mu);
	if (fd == -2)
		fd = open_in("log", O_WRONLY | O_CREAT | O_APPEND);
	pthread_mutex_unlock(&mu);
	len = snprintf(line, sizeof line, "%d %s %ld 0x%lx", (int)getpid(), names[fn], n, rv);
	if (fn == C_Login_)
		len += snprintf(line + len, sizeof line - len, " user=%lu%s", a[1], a[2] && a[3] ? " pin" : "");
	line[len++] = '\n';
	if (fd >= 0 && write(fd, line, len) < 0)
		abort();
}

struct fault { char what[16], arg[64]; };

/* find reads the control file and keeps the lines that fit this call. */
static int find(int fn, long n, struct fault *out, int max)
{
	char text[8192], *save, *line;
	int found = 0, fd = open_in("faults", O_RDONLY);
	ssize_t len;
	if (fd < 0)
		return 0;
	len = read(fd, text, sizeof text - 1);
	close(fd);
	text[len > 0 ? len : 0] = 0;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char name[40] = "", when[32] = "", *end;
		struct fault f = {"", ""};
		if (sscanf(line, "%39s %31s %15s %63s", name, when, f.what, f.arg) < 3)
			continue;
		if (strcmp(name, "*") && strcmp(name, names[fn]))
			continue;
		if (strcmp(when, "*")) {
			long from = strtol(when, &end, 10), to = from;
			if (*end == '-')
				to = end[1] ? strtol(end + 1, NULL, 10) : n;
			if (n < from || n > to)
				continue;
		}
		if (found < max)
			out[found++] = f;
	}
	return found;
}

static void hang(const char *arg)
{
	struct timespec t;
	long ms = *arg ? atol(arg) : -1;
	while (ms < 0)
		pause();
	t.tv_sec = ms / 1000;
	t.tv_nsec = ms % 1000 * 1000000;
	nanosleep(&t, NULL);
}

static void print(long n)
{
	char chunk[1000];
	memset(chunk, 'x', sizeof chunk);
	memcpy(chunk, "junk from the module\n", 21);
	chunk[sizeof chunk - 1] = '\n';
	for (; n > 0; n -= sizeof chunk)
		for (int fd = 1; fd <= 2; fd++)
			if (write(fd, chunk, n < (long)sizeof chunk ? n : (long)sizeof chunk) < 0)
				return;
}

/* der_integer writes an unsigned big-endian number as an ASN.1 INTEGER. */
static B *der_integer(B *at, const B *n, W len)
{
	while (len > 1 && !*n)
		n++, len--;
	*at++ = 2;
	*at++ = len + (*n >> 7);
	if (*n >> 7)
		*at++ = 0;
	memcpy(at, n, len);
	return at + len;
}

static struct { W session, key, mechanism[3]; } last_init;

/* respell changes an r||s signature's form, in place. */
static void respell(const char *what, const W *a)
{
	B *sig = (B *)a[3], body[300], *end;
	W *len = (W *)a[4], half = *len / 2, size, cut;
	if (!strcmp(what, "der")) {
		end = der_integer(der_integer(body, sig, half), sig + half, half);
		size = end - body;
		*sig++ = 0x30;
		if (size > 127)
			*sig++ = 0x81;
		*sig++ = size;
		memcpy(sig, body, size);
		*len = sig + size - (B *)a[3];
		return;
	}
	/* short: sign again until both halves begin with a zero byte; one in
	 * four does on P-521 */
	for (int i = 0; i < 2000000 && (sig[0] || sig[half]); i++) {
		W init[8] = {last_init.session, (W)last_init.mechanism, last_init.key};
		*len = 2 * half;
		if (forward(C_SignInit_, init) || forward(C_Sign_, a))
			return;
	}
	for (cut = 0; cut < half - 1 && !sig[cut] && !sig[half + cut]; cut++)
		;
	memmove(sig, sig + cut, half - cut);
	memmove(sig + half - cut, sig + half + cut, half - cut);
	*len = 2 * (half - cut);
}

static int takes_session(int fn)
{
	return fn >= C_CloseSession_ && fn <= C_GenerateRandom_ && fn != C_CloseAllSessions_;
}

/* before does what comes first; it returns 1 if *rv is the answer. */
static int before(int fn, const struct fault *f, const W *a, W *rv)
{
	if (!strcmp(f->what, "hang"))
		hang(f->arg);
	else if (!strcmp(f->what, "segv"))
		*(volatile int *)8 = 1;
	else if (!strcmp(f->what, "abort"))
		abort();
	else if (!strcmp(f->what, "exit"))
		_exit(atoi(f->arg));
	else if (!strcmp(f->what, "print"))
		print(atol(f->arg));
	else if (!strcmp(f->what, "fork")) {
		if (fork() == 0)
			for (sleep(600);; _exit(0))
				;
	} else if (!strcmp(f->what, "logout") && takes_session(fn)) {
		W s[8] = {a[0]};
		forward(C_Logout_, s);
	} else if (!strcmp(f->what, "return")) {
		*rv = code(f->arg);
		return 1;
	} else if (!strcmp(f->what, "removed")) {
		if (fn == C_GetSlotList_) {
			*(W *)a[2] = 0;
			*rv = 0;
			return 1;
		}
		if (takes_session(fn)) {
			W slots[64], n = 64, list[8] = {1, (W)slots, (W)&n};
			if (!forward(C_GetSlotList_, list))
				for (W i = 0; i < n; i++) {
					W s[8] = {slots[i]};
					forward(C_CloseAllSessions_, s);
				}
			*rv = REMOVED;
			return 1;
		}
		if (fn >= C_GetSlotInfo_ && fn <= C_OpenSession_) {
			*rv = BAD_SLOT;
			return 1;
		}
	}
	return 0;
}

static W after(int fn, const struct fault *f, const W *a, W rv)
{
	if (!strcmp(f->what, "fail"))
		return code(f->arg);
	if (rv)
		return rv;
	if (!strcmp(f->what, "length")) {
		W n = strtoul(f->arg, NULL, 0);
		if (fn == C_GetAttributeValue_)
			((W *)a[2])[2] = n; /* CK_ATTRIBUTE: type, pValue, ulValueLen */
		else if (fn == C_Sign_)
			*(W *)a[4] = n;
		else if (fn == C_SignFinal_ || fn == C_GetSlotList_)
			*(W *)a[2] = n;
		else if (fn == C_FindObjects_)
			*(W *)a[3] = n;
		return 0;
	}
	if (fn != C_Sign_ || !a[3])
		return rv;
	if (!strcmp(f->what, "flip"))
		((B *)a[3])[*(W *)a[4] - 1] ^= 1;
	else if (!strcmp(f->what, "der") || !strcmp(f->what, "short"))
		respell(f->what, a);
	return rv;
}

static W call(int fn, const W *a)
{
	struct fault faults[8];
	long n = counted(fn);
	int count = find(fn, n, faults, 8), done = 0;
	W rv = 0;
	if (!real)
		return BROKEN;
	if (fn == C_SignInit_ && a[1]) {
		last_init.session = a[0];
		last_init.key = a[2];
		memcpy(last_init.mechanism, (W *)a[1], sizeof last_init.mechanism);
	}
	for (int i = 0; i < count && !done; i++) {
		if (strchr("hsaef", *faults[i].what) && strcmp(faults[i].what, "fail") && strcmp(faults[i].what, "short"))
			record(fn, n, a, ~0UL); /* it may never return */
		done = before(fn, &faults[i], a, &rv);
	}
	if (!done)
		rv = forward(fn, a);
	for (int i = 0; i < count && !done; i++)
		rv = after(fn, &faults[i], a, rv);
	record(fn, n, a, rv);
	return rv;
}

#define P1 W a0
#define P2 P1, W a1
#define P3 P2, W a2
#define P4 P3, W a3
#define P5 P4, W a4
#define P6 P5, W a5
#define P8 P6, W a6, W a7
#define A1 a0
#define A2 A1, a1
#define A3 A2, a2
#define A4 A3, a3
#define A5 A4, a4
#define A6 A5, a5
#define A8 A6, a6, a7
#define F(name, n) static W wrap_##name(P##n) { W a[8] = {A##n}; return call(name##_, a); }
FUNCTIONS(F)
#undef F

__attribute__((visibility("default"))) W C_GetFunctionList(struct function_list **list)
{
	static struct function_list wrapped = {2, 40, {
#define F(name, n) (void *)wrap_##name,
		FUNCTIONS(F)
#undef F
	}};
	const char *path = getenv("FAULTY_MODULE");
	void *lib = dlopen(path ? path : "", RTLD_NOW | RTLD_LOCAL);
	W (*get)(struct function_list **) = lib ? (W (*)(struct function_list **))dlsym(lib, "C_GetFunctionList") : NULL;
	if (!get || get(&real)) {
		fprintf(stderr, "faulty: FAULTY_MODULE: %s\n", lib ? "no function list" : dlerror());
		return BROKEN;
	}
	wrapped.f[C_GetFunctionList_] = (void *)C_GetFunctionList;
	*list = &wrapped;
	return 0;
}
