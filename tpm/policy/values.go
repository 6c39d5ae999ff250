package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
)

// Values are PCR values, by bank and index.
type Values map[tpm2.TPMIAlgHash]map[int][]byte

// readTries bounds how often values are read again because a PCR was extended
// in between.
const readTries = 5

// errNoBank: the TPM has not such PCRs.
var errNoBank = errors.New("the TPM lacks them")

// Read reads the selected PCRs, all at one moment.
func Read(ctx context.Context, tpm transport.TPM, sel Selection) (Values, error) {
	for range readTries {
		v, steady, err := readOnce(ctx, tpm, sel)
		if err != nil {
			return nil, fmt.Errorf("reading PCRs %s: %w", sel, err)
		}
		if steady {
			return v, nil
		}
	}
	return nil, fmt.Errorf("reading PCRs %s: they kept changing", sel)
}

func readOnce(ctx context.Context, tpm transport.TPM, sel Selection) (v Values, steady bool, err error) {
	v, steady = Values{}, true
	first, counter := true, uint32(0)
	for _, b := range sel {
		v[b.Hash] = map[int][]byte{}
		for rest := b.PCRs; len(rest) > 0; {
			if err := ctx.Err(); err != nil {
				return nil, false, err
			}
			ask := Selection{{b.Hash, rest}}
			rsp, err := tpm2.PCRRead{PCRSelectionIn: ask.TPM()}.Execute(tpm)
			if err != nil {
				return nil, false, err
			}
			got, err := SelectionOf(rsp.PCRSelectionOut)
			if err != nil {
				return nil, false, err
			}
			if len(got) != 1 || len(got[0].PCRs) == 0 || len(got[0].PCRs) != len(rsp.PCRValues.Digests) {
				return nil, false, signer.WithHint(fmt.Errorf("%w: no %s bank, or no PCR %d in it", errNoBank, bankName(b.Hash), rest[0]),
					"choose a bank that the firmware has switched on; `tpm2_getcap pcrs` lists them")
			}
			if !first && rsp.PCRUpdateCounter != counter {
				steady = false
			}
			first, counter = false, rsp.PCRUpdateCounter
			for i, pcr := range got[0].PCRs {
				if len(rest) == 0 || rest[0] != pcr {
					return nil, false, fmt.Errorf("the TPM answered with PCR %d, which was not asked for, or not in its turn", pcr)
				}
				v[b.Hash][pcr] = rsp.PCRValues.Digests[i].Buffer
				rest = rest[1:]
			}
		}
	}
	return v, steady, nil
}

// Digest hashes the selected values as TPM2_PolicyPCR and a quote do.
func (v Values) Digest(hash tpm2.TPMIAlgHash, sel Selection) ([]byte, error) {
	alg, err := hash.Hash()
	if err != nil {
		return nil, fmt.Errorf("policy: %w: hash algorithm %#x", ErrUnsupported, uint16(hash))
	}
	h := alg.New()
	for _, b := range sel {
		size, err := b.Hash.Hash()
		if err != nil {
			return nil, fmt.Errorf("policy: %w: PCR bank %#x", ErrUnsupported, uint16(b.Hash))
		}
		for _, pcr := range b.PCRs {
			value := v[b.Hash][pcr]
			if len(value) != size.Size() {
				return nil, fmt.Errorf("policy: no value for PCR %s:%d", bankName(b.Hash), pcr)
			}
			h.Write(value)
		}
	}
	return h.Sum(nil), nil
}

// NewPCR returns the step that binds a key of the given name algorithm to
// values.
func NewPCR(hash tpm2.TPMIAlgHash, sel Selection, v Values) (PCR, error) {
	d, err := v.Digest(hash, sel)
	if err != nil {
		return PCR{}, err
	}
	return PCR{Selection: sel, Digest: d}, nil
}

// Compare returns the selected PCRs whose values differ, in the selection's
// order. A PCR that v or now lacks is not among them.
func (v Values) Compare(now Values, sel Selection) []Change {
	var all []Change
	for _, b := range sel {
		for _, pcr := range b.PCRs {
			was, is := v[b.Hash][pcr], now[b.Hash][pcr]
			if was != nil && is != nil && !bytes.Equal(was, is) {
				all = append(all, Change{b.Hash, pcr, was, is})
			}
		}
	}
	return all
}
