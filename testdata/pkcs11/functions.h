/* The little of PKCS#11 2.40 that faulty.c needs. */

/* Every argument of every PKCS#11 function is a CK_ULONG, a pointer or a
 * CK_BBOOL: one machine word wherever this is run. */
typedef unsigned long W;
typedef unsigned char B;

/* name, number of arguments; the order of CK_FUNCTION_LIST */
#define FUNCTIONS(F) \
	F(C_Initialize, 1) F(C_Finalize, 1) F(C_GetInfo, 1) F(C_GetFunctionList, 1) \
	F(C_GetSlotList, 3) F(C_GetSlotInfo, 2) F(C_GetTokenInfo, 2) \
	F(C_GetMechanismList, 3) F(C_GetMechanismInfo, 3) F(C_InitToken, 4) \
	F(C_InitPIN, 3) F(C_SetPIN, 5) F(C_OpenSession, 5) F(C_CloseSession, 1) \
	F(C_CloseAllSessions, 1) F(C_GetSessionInfo, 2) F(C_GetOperationState, 3) \
	F(C_SetOperationState, 5) F(C_Login, 4) F(C_Logout, 1) F(C_CreateObject, 4) \
	F(C_CopyObject, 5) F(C_DestroyObject, 2) F(C_GetObjectSize, 3) \
	F(C_GetAttributeValue, 4) F(C_SetAttributeValue, 4) F(C_FindObjectsInit, 3) \
	F(C_FindObjects, 4) F(C_FindObjectsFinal, 1) F(C_EncryptInit, 3) F(C_Encrypt, 5) \
	F(C_EncryptUpdate, 5) F(C_EncryptFinal, 3) F(C_DecryptInit, 3) F(C_Decrypt, 5) \
	F(C_DecryptUpdate, 5) F(C_DecryptFinal, 3) F(C_DigestInit, 2) F(C_Digest, 5) \
	F(C_DigestUpdate, 3) F(C_DigestKey, 2) F(C_DigestFinal, 3) F(C_SignInit, 3) \
	F(C_Sign, 5) F(C_SignUpdate, 3) F(C_SignFinal, 3) F(C_SignRecoverInit, 3) \
	F(C_SignRecover, 5) F(C_VerifyInit, 3) F(C_Verify, 5) F(C_VerifyUpdate, 3) \
	F(C_VerifyFinal, 3) F(C_VerifyRecoverInit, 3) F(C_VerifyRecover, 5) \
	F(C_DigestEncryptUpdate, 5) F(C_DecryptDigestUpdate, 5) F(C_SignEncryptUpdate, 5) \
	F(C_DecryptVerifyUpdate, 5) F(C_GenerateKey, 5) F(C_GenerateKeyPair, 8) \
	F(C_WrapKey, 6) F(C_UnwrapKey, 8) F(C_DeriveKey, 6) F(C_SeedRandom, 3) \
	F(C_GenerateRandom, 3) F(C_GetFunctionStatus, 1) F(C_CancelFunction, 1) \
	F(C_WaitForSlotEvent, 3)

enum {
#define F(name, n) name##_,
	FUNCTIONS(F)
#undef F
	COUNT
};
static const char *const names[] = {
#define F(name, n) #name,
	FUNCTIONS(F)
#undef F
};

struct function_list { B major, minor; void *f[COUNT]; };
static const struct { const char *name; W value; } codes[] = {
	{"CKR_GENERAL_ERROR", 0x05}, {"CKR_FUNCTION_FAILED", 0x06},
	{"CKR_DEVICE_ERROR", 0x30}, {"CKR_DEVICE_MEMORY", 0x31},
	{"CKR_DEVICE_REMOVED", 0x32}, {"CKR_KEY_HANDLE_INVALID", 0x60},
	{"CKR_OBJECT_HANDLE_INVALID", 0x82}, {"CKR_OPERATION_ACTIVE", 0x90},
	{"CKR_OPERATION_NOT_INITIALIZED", 0x91}, {"CKR_PIN_INCORRECT", 0xA0},
	{"CKR_PIN_LOCKED", 0xA4}, {"CKR_SESSION_CLOSED", 0xB0},
	{"CKR_SESSION_HANDLE_INVALID", 0xB3}, {"CKR_TOKEN_NOT_PRESENT", 0xE0},
	{"CKR_TOKEN_NOT_RECOGNIZED", 0xE1}, {"CKR_USER_ALREADY_LOGGED_IN", 0x100},
	{"CKR_USER_NOT_LOGGED_IN", 0x101}, {"CKR_CRYPTOKI_NOT_INITIALIZED", 0x190},
};
