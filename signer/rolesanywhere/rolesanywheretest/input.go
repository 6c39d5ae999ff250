package rolesanywheretest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxSession is the greatest durationSeconds; shortest is the least.
const maxSession = 43200

// input is CreateSession's. A field left out is its zero value.
type input struct {
	profileARN, roleARN, trustAnchorARN string

	durationSeconds *int64
	roleSessionName *string

	unknown []string // members and parameters that mean nothing to the service
}

// member is one of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// parseInput reads query and body and checks every member by itself. The
// input's unknown is set even if the rest is refused.
func (s *Server) parseInput(rawQuery string, body []byte) (input, *Refusal) {
	var in input
	params, err := parseQuery(rawQuery)
	if err != nil {
		return in, badSignature(err.Error())
	}
	for _, p := range params {
		if target := in.arn(p.name); target == nil {
			in.unknown = append(in.unknown, p.name)
		} else if refusal := setOnce(target, p.name, p.value); refusal != nil {
			return in, refusal
		}
	}
	members, err := parseObject(body)
	if err != nil {
		return in, notJSON(err)
	}
	var violations []string
	for _, m := range members {
		found, refusal := s.take(&in, m)
		if refusal != nil {
			return in, refusal
		}
		violations = append(violations, found...)
	}
	violations = append(violations, in.checkARNs()...)
	if len(violations) > 0 {
		return in, invalid(validationMessage(violations...), "")
	}
	return in, nil
}

// arn returns where a parameter of that name belongs, or nil.
func (in *input) arn(name string) *string {
	switch name {
	case "profileArn":
		return &in.profileARN
	case "roleArn":
		return &in.roleARN
	case "trustAnchorArn":
		return &in.trustAnchorARN
	}
	return nil
}

// setOnce refuses a second value unless it is the first again.
func setOnce(target *string, name, value string) *Refusal {
	if *target != "" && *target != value {
		return invalid(msgConflict, fmt.Sprintf("%s is both %q and %q", name, *target, value))
	}
	*target = value
	return nil
}

// take reads a member of the body. It returns what the service's model
// forbids, or a refusal if the JSON type is wrong.
func (s *Server) take(in *input, m member) ([]string, *Refusal) {
	decode := func(target any) *Refusal {
		if err := json.Unmarshal(m.value, target); err != nil {
			return notJSON(fmt.Errorf("%s: %w", m.name, err))
		}
		return nil
	}
	switch m.name {
	case "profileArn", "roleArn", "trustAnchorArn":
		var value *string
		if refusal := decode(&value); refusal != nil || value == nil {
			return nil, refusal
		}
		return nil, setOnce(in.arn(m.name), m.name, *value)
	case "durationSeconds":
		if refusal := decode(&in.durationSeconds); refusal != nil || in.durationSeconds == nil {
			return nil, refusal
		}
		return s.checkDuration(*in.durationSeconds), nil
	case "roleSessionName":
		if refusal := decode(&in.roleSessionName); refusal != nil || in.roleSessionName == nil {
			return nil, refusal
		}
		return checkSessionName(*in.roleSessionName), nil
	case "instanceProperties":
		var properties map[string]*string
		if refusal := decode(&properties); refusal != nil {
			return nil, refusal
		}
		return checkInstanceProperties(properties), nil
	case "sessionName":
		var ignored *string
		return nil, decode(&ignored)
	}
	in.unknown = append(in.unknown, m.name)
	return nil, nil
}

func (in *input) checkARNs() []string {
	var violations []string
	check := func(member, value, service, kind string) {
		if value == "" {
			violations = append(violations, "Value null at '"+member+"' failed to satisfy constraint: Member must not be null")
		} else if _, ok := parseARN(value, service, kind); !ok {
			violations = append(violations, constraint(value, member,
				"Member must satisfy regular expression pattern: ^arn:aws(-[^:]+)?:"+service+"(:.*){2}(:"+kind+".*)$"))
		}
	}
	check("profileArn", in.profileARN, service, "profile")
	check("roleArn", in.roleARN, "iam", "role")
	check("trustAnchorArn", in.trustAnchorARN, service, "trust-anchor")
	return violations
}

func (s *Server) checkDuration(seconds int64) []string {
	value := fmt.Sprint(seconds)
	switch least := s.shortest(); {
	case seconds < least:
		return []string{constraint(value, "durationSeconds", fmt.Sprintf("Member must have value greater than or equal to %d", least))}
	case seconds > maxSession:
		return []string{constraint(value, "durationSeconds", fmt.Sprintf("Member must have value less than or equal to %d", maxSession))}
	}
	return nil
}

func checkSessionName(name string) []string {
	const member = "roleSessionName"
	var violations []string
	if length := utf8.RuneCountInString(name); length < 2 {
		violations = append(violations, constraint(name, member, "Member must have length greater than or equal to 2"))
	} else if length > 64 {
		violations = append(violations, constraint(name, member, "Member must have length less than or equal to 64"))
	}
	if !matches(`^[\w+=,.@-]*$`, name) {
		violations = append(violations, constraint(name, member, `Member must satisfy regular expression pattern: [\w+=,.@-]*`))
	}
	return violations
}

func checkInstanceProperties(properties map[string]*string) []string {
	var violations []string
	if len(properties) > 50 {
		violations = append(violations, constraint("", "instanceProperties", "Member must have length less than or equal to 50"))
	}
	for name, value := range properties { // the bound and its text were not observed here
		if len(name) == 0 || len(name) > 200 || value == nil || len(*value) > 200 {
			violations = append(violations, constraint("", "instanceProperties", "Map keys and values must have length less than or equal to 200"))
			break
		}
	}
	return violations
}

// constraint and validationMessage speak as AWS's model validation does.
func constraint(value, member, rule string) string {
	return "Value '" + value + "' at '" + member + "' failed to satisfy constraint: " + rule
}

func validationMessage(violations ...string) string {
	plural := "s"
	if len(violations) == 1 {
		plural = ""
	}
	return fmt.Sprintf("%d validation error%s detected: %s", len(violations), plural, strings.Join(violations, "; "))
}

// notJSON is how other rest-json services refuse a body; not observed here.
func notJSON(err error) *Refusal {
	return &Refusal{http.StatusBadRequest, "SerializationException", msgNotJSON, err.Error()}
}

// parseObject splits a JSON object into its members. An empty body is an
// empty object.
func parseObject(body []byte) ([]member, error) {
	if len(body) == 0 {
		return nil, nil
	}
	if !utf8.Valid(body) {
		return nil, errors.New("not UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	var members []member
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		m := member{name: fmt.Sprint(token)} // within an object, a string
		if slices.ContainsFunc(members, func(other member) bool { return other.name == m.name }) {
			return nil, fmt.Errorf("member %q twice", m.name)
		}
		if err := decoder.Decode(&m.value); err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	if _, err := decoder.Token(); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON object")
	}
	return members, nil
}
