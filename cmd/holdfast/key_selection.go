package main

import (
	"maps"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// chosen returns the PCRs of sel that are chosen, without banks that are left
// empty.
func chosen(sel policy.Selection, is func(bank tpm2.TPMIAlgHash, pcr int) bool) policy.Selection {
	var out policy.Selection
	for _, b := range sel {
		var pcrs []int
		for _, pcr := range b.PCRs {
			if is(b.Hash, pcr) {
				pcrs = append(pcrs, pcr)
			}
		}
		if pcrs != nil {
			out = append(out, policy.Bank{Hash: b.Hash, PCRs: pcrs})
		}
	}
	return out
}

func holds(sel policy.Selection, bank tpm2.TPMIAlgHash, pcr int) bool {
	return slices.ContainsFunc(sel, func(b policy.Bank) bool { return b.Hash == bank && slices.Contains(b.PCRs, pcr) })
}

// common returns the PCRs that are in both.
func common(a, b policy.Selection) policy.Selection {
	return chosen(a, func(bank tpm2.TPMIAlgHash, pcr int) bool { return holds(b, bank, pcr) })
}

// minus returns the PCRs of a that are not in b.
func minus(a, b policy.Selection) policy.Selection {
	return chosen(a, func(bank tpm2.TPMIAlgHash, pcr int) bool { return !holds(b, bank, pcr) })
}

// selectionOf returns what there are values of.
func selectionOf(v policy.Values) policy.Selection {
	var out policy.Selection
	for _, bank := range slices.Sorted(maps.Keys(v)) {
		if pcrs := slices.Sorted(maps.Keys(v[bank])); len(pcrs) > 0 {
			out = append(out, policy.Bank{Hash: bank, PCRs: pcrs})
		}
	}
	return out
}

// merge adds more to v, in the place of what v has of the same PCRs.
func merge(v, more policy.Values) {
	for bank, pcrs := range more {
		if v[bank] == nil {
			v[bank] = map[int][]byte{}
		}
		maps.Copy(v[bank], pcrs)
	}
}

// unmeasured returns the PCRs that nothing was measured into: all zeros, or all
// ones, as those of the dynamic root of trust are before it is used.
func unmeasured(sel policy.Selection, v policy.Values) policy.Selection {
	return chosen(sel, func(bank tpm2.TPMIAlgHash, pcr int) bool {
		value := v[bank][pcr]
		only := func(b byte) bool { return !slices.ContainsFunc(value, func(x byte) bool { return x != b }) }
		return only(0) || only(0xff)
	})
}
