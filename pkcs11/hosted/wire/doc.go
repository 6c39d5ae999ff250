// Package wire is what holdfast and holdfast-pkcs11 say to each other. It is
// private to one release: a host of another protocol [Version] is refused.
//
// A message is a frame: the length of what follows (4 bytes, big endian), a
// request's number (4), an operation (1) and fields. holdfast numbers its
// requests; replies come in any order and bear the request's number. [Hello]
// is request 0 and comes first, but nothing waits for its reply.
//
//	holdfast                         holdfast-pkcs11
//	Hello{version, module}      →
//	Open{URI}                   →    loads the module, finds the key
//	                            ←    Ask{login, token}        (request 1)
//	Answer{PIN}                 →
//	                            ←    Reply{Welcome}           (request 0)
//	                            ←    Reply{Opened}            (request 1)
//	Sign{key, digest}           →
//	                            ←    Reply{Signature}, or Fail{Error}
//	Bye                         →    C_Finalize, exit
//
// PINs are in Answer and nowhere else; both sides wipe that frame.
package wire
