package evidence

import "github.com/google/go-tpm/tpm2"

// CollectUnchecked makes bundles of keys that Collect refuses.
var CollectUnchecked = collect

// AKTemplate is the attestation key's.
var AKTemplate = akTemplate

// EKTemplates are those of the endorsement keys, by name.
func EKTemplates() map[string]tpm2.TPMTPublic {
	all := map[string]tpm2.TPMTPublic{}
	for _, k := range ekKinds() {
		all[k.name] = k.template
	}
	return all
}
