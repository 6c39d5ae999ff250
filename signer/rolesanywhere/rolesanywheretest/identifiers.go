package rolesanywheretest

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
)

// arn is an Amazon resource name, split.
type arn struct {
	partition, service, region, account, resource string
}

// parseARN splits text if it is an ARN of the service and its resource is of
// the form kind/….
func parseARN(text, service, kind string) (arn, bool) {
	parts := strings.SplitN(text, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || len(text) > 1011 {
		return arn{}, false
	}
	a := arn{parts[1], parts[2], parts[3], parts[4], parts[5]}
	id, ok := strings.CutPrefix(a.resource, kind+"/")
	ok = ok && a.service == service &&
		matches(`^aws(-[a-z]+)*$`, a.partition) &&
		matches(`^[0-9]{12}$`, a.account)
	switch service {
	case "iam":
		ok = ok && a.region == "" && matches(`^([!-~]+/)?[\w+=,.@-]{1,64}$`, id)
	default:
		ok = ok && matches(`^[a-z]+(-[a-z]+)+-[0-9]+$`, a.region) &&
			matches(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`, id)
	}
	return a, ok
}

// name returns what follows the last slash: a role's name without its path.
func (a arn) name() string { return a.resource[strings.LastIndexByte(a.resource, '/')+1:] }

func matches(pattern, text string) bool { return regexp.MustCompile(pattern).MatchString(text) }

func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// newID returns prefix and n characters of the base32 alphabet, n ≤ 26.
func newID(prefix string, n int) string { return prefix + rand.Text()[:n] }

// newSecret returns n random bytes in base64.
func newSecret(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}
