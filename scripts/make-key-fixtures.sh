#!/bin/sh
# Makes the ML-DSA keys and certificates of testdata/software/mldsa, which the
# tests of package software read. They come from OpenSSL, so that the tests
# hold holdfast's reading of RFC 9881 against another's. All of them are
# throw-away keys: those of RFC 9881's examples (seed 00 01 … 1f) and, for the
# certificates, random ones.
#
#   scripts/make-key-fixtures.sh [directory]
#
# Any OpenSSL from 3.5 on will do; OPENSSL names the program. Debian has it
# since trixie:
#
#   debootstrap --variant=minbase --include=openssl trixie /tmp/trixie
#   cp scripts/make-key-fixtures.sh /tmp/trixie/
#   mkdir /tmp/trixie/out && chroot /tmp/trixie sh /make-key-fixtures.sh /out
#   cp /tmp/trixie/out/* testdata/software/mldsa/
set -eu
cd "${1:-$(dirname "$0")/../testdata/software/mldsa}"
: "${OPENSSL:=openssl}"

if ! "$OPENSSL" list -signature-algorithms 2>/dev/null | grep -q ML-DSA-44; then
	echo "make-key-fixtures: $OPENSSL has no ML-DSA; OpenSSL 3.5 or later is needed" >&2
	exit 1
fi

pass=pass:holdfast
seed=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
as() { # as FORM IN OUT: changes the form of a key's PKCS#8 privateKey
	"$OPENSSL" pkey -provparam "ml-dsa.output_formats=$1" -in "$2" -out "$3"
}

for n in 44 65 87; do
	"$OPENSSL" genpkey -algorithm "ML-DSA-$n" -pkeyopt "hexseed:$seed" \
		-provparam ml-dsa.output_formats=seed-priv -out "$n-both.pem"
	as seed-only "$n-both.pem" "$n-seed.pem"
	as priv-only "$n-both.pem" "$n-expanded.pem"
	"$OPENSSL" pkey -pubout -in "$n-both.pem" -out "$n-public.pem"
	printf 'holdfast' >message.tmp
	"$OPENSSL" pkeyutl -sign -inkey "$n-both.pem" -in message.tmp -rawin \
		-pkeyopt deterministic:1 -out "$n-signature.bin"
done

# What drafts before RFC 9881 had, and OpenSSL still writes when asked to.
as bare-seed 44-both.pem 44-bare-seed.pem
as bare-priv 44-both.pem 44-bare-expanded.pem

# Encrypted.
"$OPENSSL" pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256 -passout $pass \
	-provparam ml-dsa.output_formats=seed-only -in 65-both.pem -out 65-seed-pbkdf2.pem
"$OPENSSL" pkcs8 -topk8 -scrypt -passout $pass -in 87-both.pem -out 87-both-scrypt.pem

# A root of ML-DSA-87, an intermediate of ML-DSA-65 and a leaf of ML-DSA-44.
newkey() {
	"$OPENSSL" genpkey -algorithm "$1" -provparam ml-dsa.output_formats=seed-only -out "$2"
}
newkey ML-DSA-87 root.tmp
newkey ML-DSA-65 sub.tmp
newkey ML-DSA-44 leaf-key.pem
cat >ext.tmp <<END
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
subjectKeyIdentifier = hash
END
issue() { # issue SUBJECT KEY SECTION OUT SERIAL SIGN-OPTIONS…
	subject=$1 key=$2 section=$3 out=$4 serial=$5
	shift 5
	"$OPENSSL" x509 -new -subj "$subject" -force_pubkey "$key" -days 36500 \
		-set_serial "$serial" -extfile ext.tmp -extensions "$section" -out "$out" "$@"
}
"$OPENSSL" pkey -pubout -in root.tmp -out root-public.tmp
"$OPENSSL" pkey -pubout -in sub.tmp -out sub-public.tmp
"$OPENSSL" pkey -pubout -in leaf-key.pem -out leaf-public.tmp
issue "/CN=holdfast test root" root-public.tmp ca root.pem 1 -signkey root.tmp
issue "/CN=holdfast test intermediate" sub-public.tmp ca sub.pem 2 -CA root.pem -CAkey root.tmp
issue "/CN=workload" leaf-public.tmp leaf leaf.pem 3 -CA sub.pem -CAkey sub.tmp
cat leaf.pem sub.pem root.pem >chain.pem

# PKCS#12, with the classic MAC and with PBMAC1 (RFC 9579).
cat sub.pem root.pem >cas.tmp
"$OPENSSL" pkcs12 -export -inkey leaf-key.pem -in leaf.pem -certfile cas.tmp -name workload \
	-passout $pass -out leaf.p12
"$OPENSSL" pkcs12 -export -inkey leaf-key.pem -in leaf.pem -certfile cas.tmp -name workload \
	-pbmac1_pbkdf2 -passout $pass -out leaf-pbmac1.p12

rm -f ./*.tmp
