package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/term"
)

// print writes the report for people.
func (r *keyReport) print(w io.Writer) error {
	p := &reportPrinter{}
	p.line("%s", r.PrivateKey)
	kind := r.Type
	if kind == "" {
		kind = "unknown: the file is encrypted, give --passphrase"
	}
	p.field("type", "%s", kind)
	if r.Fingerprint != "" {
		p.field("public key", "SHA-256 %s", r.Fingerprint)
	}
	switch {
	case r.TPM != nil:
		r.TPM.print(p)
	case r.Token != nil:
		r.printToken(p)
	case *r.Encrypted:
		p.field("lives in", "a file, encrypted with a passphrase")
	default:
		p.field("lives in", "a file, not encrypted")
	}
	for i, what := range r.Breaks {
		label := ""
		if i == 0 {
			label = "it breaks if"
		}
		p.field(label, "%s", what)
	}
	_, err := io.WriteString(w, p.String())
	return err
}

func (r *keyReport) printToken(p *reportPrinter) {
	p.field("lives in", "%s", r.Token.Token)
	p.field("", "%s", r.Token.URI)
	switch {
	case r.CanLeave == nil:
		p.field("can leave", "the token does not say")
	case *r.CanLeave:
		p.field("can leave", "yes: the token would give it away (extractable)")
	default:
		p.field("can leave", "no (not extractable)")
	}
	if r.Token.AlwaysAuthenticate {
		p.field("PIN", "wanted at every signature")
	}
	if r.Token.PINLocked {
		p.field("PIN", "locked")
	}
}

func (s *tpmKeyState) print(p *reportPrinter) {
	switch s.Form {
	case "persistent":
		p.field("lives in", "TPM %s, at handle %s", s.Device, s.Handle)
	case "loadable":
		p.field("lives in", "a TPM; this file is of use to that one only (loadable)")
	default:
		p.field("lives in", "a TPM, once that has imported it from this file (importable)")
	}
	if s.Parent != "" {
		p.field("parent", "%s", s.Parent)
	}
	switch {
	case !s.Reached:
		p.field("this TPM", "not checked: %s", s.Error)
	case s.Loads != nil && *s.Loads:
		p.field("this TPM", "%s loads it", s.Device)
	case s.Loads != nil:
		p.field("this TPM", "%s does not load it: %s", s.Device, s.LoadError)
	case s.LoadError != "":
		p.field("this TPM", "%s: not tried: %s", s.Device, s.LoadError)
	}
	switch {
	case s.Restricted:
		p.field("use", "none here: a restricted key, which protects other keys or signs what the TPM itself has made")
	case !s.Signs:
		p.field("use", "none here: it does not sign")
	}
	p.field("can leave", "%s", s.leaves())
	p.field("password", "%s", s.passwordWords())
	if s.Lockout != nil {
		p.field("lock-out", "%s", s.Lockout.words())
	}
	if s.Policy != nil {
		s.Policy.print(p)
	}
}

func (s *tpmKeyState) leaves() string {
	var not []string
	for _, a := range []struct {
		set  bool
		name string
	}{{s.SensitiveDataOrigin, "it was made elsewhere (no sensitiveDataOrigin)"}, {s.FixedTPM, "it can be duplicated to another TPM (no fixedTPM)"}, {s.FixedParent, "it can be moved to another parent (no fixedParent)"}} {
		if !a.set {
			not = append(not, a.name)
		}
	}
	if len(not) == 0 {
		return "no: made in the TPM (sensitiveDataOrigin), bound to it (fixedTPM) and to its parent (fixedParent)"
	}
	return "yes: " + strings.Join(not, ", ")
}

func (s *tpmKeyState) passwordWords() string {
	guard := "under dictionary attack protection"
	if s.NoDA {
		guard = "not under dictionary attack protection (noDA)"
	}
	switch {
	case s.Password == "none":
		return "none"
	case s.Password == "unused":
		return "of no use: the policy does not ask for it"
	case s.Password == "wanted":
		return "wanted, " + guard
	case !s.UserWithAuth:
		return "the TPM does not say; good only as far as the policy goes, " + guard
	}
	return "the TPM does not say whether it has one, " + guard
}

func (l *lockoutState) words() string {
	s := fmt.Sprintf("%d of %d wrong passwords were counted", l.Failed, l.Max)
	if l.Locked {
		s = fmt.Sprintf("locked: %d wrong passwords were counted", l.Failed)
	}
	if l.IntervalSeconds > 0 {
		s += fmt.Sprintf("; one is forgotten every %v", time.Duration(l.IntervalSeconds)*time.Second)
	}
	return s
}

func (s *policyState) print(p *reportPrinter) {
	given := ""
	if s.policy != nil && s.policy.NeedsAuth() {
		given = ", given the password"
	}
	switch {
	case s.Error != "":
		p.field("policy", "%s", s.Error)
	case len(s.Steps) == 0:
		p.field("policy", "none")
	case s.Holds == nil && s.Why == "":
		p.field("policy", "not checked")
	case s.Holds == nil:
		p.field("policy", "not checked to its end: %s", s.Why)
	case *s.Holds:
		p.field("policy", "holds now%s", given)
	default:
		p.field("policy", "does not hold now")
	}
	for i, st := range s.Steps {
		p.field("", "%d. %s%s", i+1, st.Says, st.state())
		if st.Approver != "" {
			p.field("", "     its key: SHA-256 %s", st.Approver)
		}
		p.pcrs(st.PCRs)
		for _, a := range st.Alternatives {
			name := a.Says
			if a.Name != "" {
				name = fmt.Sprintf("%q: %s", a.Name, a.Says)
			}
			p.field("", "   - %s: %s", name, a.words())
			p.pcrs(slices.DeleteFunc(slices.Clone(a.PCRs), func(s pcrState) bool { return s.Was == "" }))
		}
		if st.SignedFile != nil {
			p.field("", "   - file of signed PCR policies: %s", st.SignedFile.words())
		}
	}
}

// state is left out where what follows says it.
func (s *stepState) state() string {
	if s.Holds == nil {
		return ""
	}
	if *s.Holds {
		return ": holds"
	}
	return ": does not hold"
}

// words say why something does not hold, unless that are PCRs, which are listed
// below it.
func (j *judgement) words() string {
	switch {
	case j.Holds == nil && j.Why != "":
		return "not checked: " + j.Why
	case j.Holds == nil:
		return "not checked"
	case *j.Holds:
		return "holds"
	case j.pcrs:
		return "does not hold"
	case j.none:
		return "none found"
	}
	return "does not hold: " + j.Why
}

// A reportPrinter lays out lines of a label and a text, none of which can reach
// the terminal as more than text.
type reportPrinter struct{ strings.Builder }

func (p *reportPrinter) line(format string, args ...any) {
	p.WriteString(term.Clean(fmt.Sprintf(format, args...)) + "\n")
}

func (p *reportPrinter) field(label, format string, args ...any) {
	p.line("  %-13s%s", label, fmt.Sprintf(format, args...))
}

func (p *reportPrinter) pcrs(all []pcrState) {
	for _, s := range all {
		state := ""
		switch {
		case s.Moved != nil && *s.Moved:
			state = fmt.Sprintf("changed: was %s, is %s", s.Was, s.Is)
		case s.Moved != nil:
			state = "as it was"
		case s.Is != "":
			state = "is " + s.Is + "; what it was is not known"
		case s.Was != "":
			state = "was " + s.Was
		}
		p.field("", "     %s:%-3d%s: %s", s.Bank, s.PCR, s.Measures, state)
	}
}
