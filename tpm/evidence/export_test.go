package evidence

// CollectUnchecked makes bundles of keys that Collect refuses.
var CollectUnchecked = collect

// AKTemplate is the attestation key's.
var AKTemplate = akTemplate
