package metadata

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
)

// A snapshot is one session and the documents that show it. It never changes:
// whoever has it has credentials that belong together.
type snapshot struct {
	session    *rolesanywhere.Session
	provenance Provenance
	taken      time.Time
	expires    time.Time
	imds, ecs  document
}

// A document is a body and its length, both ready to send.
type document struct {
	body   []byte
	length []string
}

func newSnapshot(s *rolesanywhere.Session, p Provenance, now time.Time) (*snapshot, error) {
	c := s.Credentials
	// What clients are told has whole seconds, and is not later than the truth.
	expires := c.Expires.UTC().Truncate(time.Second)
	if !now.Before(expires) {
		return nil, errors.New("the session made has expired already: check this machine's clock")
	}
	type common struct {
		AccessKeyId     string //nolint:revive // the protocols' spelling
		SecretAccessKey string
		Token           string
		Expiration      string
	}
	both := common{c.AccessKeyID, c.SecretAccessKey, c.SessionToken, expires.Format(time.RFC3339)}
	imds, err := newDocument(struct {
		Code        string
		LastUpdated string
		Type        string
		common
	}{"Success", now.UTC().Format(time.RFC3339), "AWS-HMAC", both})
	if err != nil {
		return nil, err
	}
	ecs, err := newDocument(struct {
		common
		AccountId string `json:",omitempty"` //nolint:revive // the protocol's spelling
	}{both, c.AccountID})
	if err != nil {
		return nil, err
	}
	return &snapshot{session: s, provenance: p, taken: now, expires: expires, imds: imds, ecs: ecs}, nil
}

func newDocument(v any) (document, error) {
	body, err := json.Marshal(v)
	return document{body, []string{strconv.Itoa(len(body))}}, err
}

// live reports whether the credentials may still be handed out. A nil snapshot
// is not.
func (s *snapshot) live(now time.Time) bool { return s != nil && now.Before(s.expires) }

// left returns how long the credentials live; not above zero if there are none.
func (s *snapshot) left(now time.Time) time.Duration {
	if s == nil {
		return 0
	}
	return s.expires.Sub(now)
}
