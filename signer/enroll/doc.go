// Package enroll gives a key its certificate: it makes the certificate signing
// request, and it is a CA small enough to read, for those who have none.
//
//	root, err := enroll.NewCA(caKey, enroll.CAOptions{Subject: pkix.Name{CommonName: "Acme root"}})
//	der, err := enroll.NewRequest(deviceKey, enroll.RequestOptions{Subject: pkix.Name{CommonName: "device-1"}})
//	request, err := enroll.ParseRequest(der)
//	leaf, err := root.Sign(request, enroll.LeafOptions{Lifetime: 7 * 24 * time.Hour})
//
// Every key is a [crypto.Signer], the CA's as well as the subject's: a file, a
// token, a TPM. RSA from 2048 bits, EC on P-256, P-384 and P-521, and
// ML-DSA-44, -65 and -87 (RFC 9881) all work, in any mixture of subject and
// issuer. Each signature is checked against its public key before it leaves
// the package, so that a faulty token is found here and not by a verifier.
//
// What the CA issues is what IAM Roles Anywhere demands: version 3,
// digitalSignature, no CA bit, SHA-256 or better, a subject. Subjects and
// names that no verifier would take are refused with the reason.
package enroll
