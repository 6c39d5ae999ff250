// Package sts is an AWS Security Token Service for tests and demonstrations:
// GetCallerIdentity and AssumeRole by the Query protocol, with every request's
// Signature Version 4 verified as strictly as AWS does it, or stricter.
//
// Its verifier was written from AWS's documentation and shares no code with
// any signer, so that the two can prove one another.
package sts
