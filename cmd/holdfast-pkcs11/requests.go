//go:build cgo

package main

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/cryptoki"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted/wire"
	"github.com/holdfast-iam/holdfast/signer"
)

// options turns what travelled into the backend's options. PINs are asked for;
// holdfast, not this process, keeps them.
func options(o wire.Options) cryptoki.Options {
	out := cryptoki.Options{
		AllowFinalTry: o.AllowFinalTry, MaxSessions: o.MaxSessions,
		AlwaysAuthenticate: o.AlwaysAuthenticate, Replace: o.Replace,
	}
	if o.PIN {
		out.PIN = func(ctx context.Context, t pkcs11.Token) (signer.Secret, error) { return ask(ctx, t, nil) }
		out.KeyPIN = ask
		out.Accepted = accepted
	}
	return out
}

// do decodes a request, runs it and returns the message to reply with.
func (s *server) do(ctx context.Context, op wire.Op, body []byte) (wire.Message, error) {
	switch op {
	case wire.OpSign:
		return s.sign(ctx, body)
	case wire.OpOpen:
		var m wire.Open
		if err := wire.Decode(body, &m); err != nil {
			return nil, err
		}
		var k *cryptoki.Key
		var certs []pkcs11.Certificate
		var err error
		if m.Certificates {
			k, certs, err = s.module.OpenIdentity(ctx, m.URI, m.Public, options(m.Options))
		} else {
			k, err = s.module.OpenKey(ctx, m.URI, m.Public, options(m.Options))
		}
		if err != nil {
			return nil, err
		}
		return s.opened(k, certs)
	case wire.OpGenerate:
		var m wire.Generate
		if err := wire.Decode(body, &m); err != nil {
			return nil, err
		}
		k, err := s.module.GenerateKey(ctx, m.URI, m.Algorithm, options(m.Options))
		if err != nil {
			return nil, err
		}
		return s.opened(k, nil)
	case wire.OpTokens:
		tokens, err := s.module.Tokens(ctx)
		return &wire.Tokens{Tokens: tokens}, err
	case wire.OpCertificates, wire.OpList:
		var m wire.Query
		if err := wire.Decode(body, &m); err != nil {
			return nil, err
		}
		if op == wire.OpList {
			contents, err := s.module.List(ctx, m.URI, options(m.Options))
			return &wire.Contents{Contents: contents}, err
		}
		certs, err := s.module.Certificates(ctx, m.URI, options(m.Options))
		return &wire.Certificates{Certificates: certs}, err
	case wire.OpImport:
		return s.importCertificate(ctx, body)
	case wire.OpKeyCerts, wire.OpCloseKey:
		var m wire.KeyRef
		if err := wire.Decode(body, &m); err != nil {
			return nil, err
		}
		k, err := s.key(m.Key)
		if err != nil {
			return nil, err
		}
		if op == wire.OpCloseKey {
			s.forget(m.Key)
			return nil, k.Close()
		}
		certs, err := k.Certificates(ctx)
		return &wire.Certificates{Certificates: certs}, err
	}
	return nil, fmt.Errorf("%w: operation %d is no request", wire.ErrFrame, op)
}

func (s *server) sign(ctx context.Context, body []byte) (wire.Message, error) {
	var m wire.Sign
	if err := wire.Decode(body, &m); err != nil {
		return nil, err
	}
	k, err := s.key(m.Key)
	if err != nil {
		return nil, err
	}
	var opts crypto.SignerOpts = crypto.Hash(m.Hash)
	if m.PSS {
		opts = &rsa.PSSOptions{SaltLength: m.Salt, Hash: crypto.Hash(m.Hash)}
	}
	sign := k.SignContext
	if m.Message {
		sign = k.SignMessageContext
	}
	sig, err := sign(ctx, m.Data, opts)
	return &wire.Signature{Bytes: sig}, err
}

func (s *server) importCertificate(ctx context.Context, body []byte) (wire.Message, error) {
	var m wire.Import
	if err := wire.Decode(body, &m); err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(m.DER)
	if err != nil {
		return nil, err
	}
	stored, err := s.module.ImportCertificate(ctx, m.URI, cert, options(m.Options))
	return &wire.Certificates{Certificates: []pkcs11.Certificate{stored}}, err
}

// opened gives the key a handle and describes it.
func (s *server) opened(k *cryptoki.Key, certs []pkcs11.Certificate) (wire.Message, error) {
	m := &wire.Opened{Public: k.Public(), URI: k.URI(), Info: k.Info(), Certificates: certs}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil { // on the way out
		_ = k.Close()
		return nil, context.Canceled
	}
	s.next++
	m.Key = s.next
	s.keys[m.Key] = k
	return m, nil
}

func (s *server) key(handle uint32) (*cryptoki.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.keys[handle]; k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("%w: no key %d", wire.ErrFrame, handle)
}

func (s *server) forget(handle uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, handle)
}
