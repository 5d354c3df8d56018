package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const schema = `{
	"$schema": "https://json-schema.org/draft/2020-12/schema",
	"additionalProperties": false,
	"description": "What the operator configures.",
	"properties": {
		"keep": {
			"default": 3,
			"description": "How many images of each repository are kept, those that arrived last.",
			"format": "uint32",
			"minimum": 0,
			"type": "integer"
		},
		"used-within": {
			"default": null,
			"description": "What was used or arrived within this time is kept, too.",
			"examples": ["30d", "12h", "1w2d"],
			"pattern": "^([0-9]+[wdhms])+$",
			"type": ["string", "null"]
		}
	},
	"title": "Config",
	"type": "object"
}`

// What the operator configures.
type config struct {
	// How many images of each repository are kept.
	keep uint32
	// What was used within this time is kept, too, where it is set.
	usedWithin *age
}

// Reads a config; every error names the policy and the key.
func parseConfig(document string) (config, error) {
	result := config{keep: 3}
	var values map[string]json.RawMessage
	if err := json.Unmarshal([]byte(document), &values); err != nil || values == nil {
		return result, fmt.Errorf("config of %s: expected a JSON object", name)
	}
	var unknown []string
	for key := range values {
		if key != "keep" && key != "used-within" {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) > 0 {
		first := slices.Min(unknown)
		return result, fmt.Errorf("config of %s: unknown key `%s`: the keys are `keep` and `used-within`", name, first)
	}
	if value, isSet := values["keep"]; isSet {
		if err := result.readKeep(string(value)); err != nil {
			return result, err
		}
	}
	if value, isSet := values["used-within"]; isSet && string(value) != "null" {
		return result, result.readUsedWithin(string(value))
	}
	return result, nil
}

func (c *config) readKeep(value string) error {
	if !isInteger(value) {
		return refused("keep", "type", value, "u32")
	}
	keep, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return refused("keep", "value", value, "u32")
	}
	c.keep = uint32(keep)
	return nil
}

func (c *config) readUsedWithin(value string) error {
	if value[0] != '"' {
		return refused("used-within", "type", value, "a string")
	}
	text := decoded(value)
	within, err := parseAge(text)
	if err != nil {
		characters := []rune(text)
		shortened := string(characters[:min(len(characters), 40)])
		return fmt.Errorf("config of %s: `used-within`: `%s` is %w", name, shortened, err)
	}
	c.usedWithin = &within
	return nil
}

func refused(key, what, value, expected string) error {
	return fmt.Errorf("config of %s: `%s`: invalid %s: %s, expected %s", name, key, what, describe(value), expected)
}

// Whether a value of JSON is an integer as it is written.
func isInteger(value string) bool {
	digits := strings.TrimPrefix(value, "-")
	return strings.Trim(digits, "0123456789") == ""
}

// What a value is, in words.
func describe(value string) string {
	switch value[0] {
	case 'n':
		return "null"
	case 't', 'f':
		return fmt.Sprintf("boolean `%s`", value)
	case '"':
		return "string " + quoted(decoded(value))
	case '[':
		return "sequence"
	case '{':
		return "map"
	}
	if isInteger(value) {
		return fmt.Sprintf("integer `%s`", value)
	}
	return fmt.Sprintf("floating point `%s`", value)
}

// What a string of JSON says.
func decoded(value string) string {
	var text string
	// It was read once as part of the document.
	if err := json.Unmarshal([]byte(value), &text); err != nil {
		panic(err)
	}
	return text
}

// A string in quotes, with what cannot be seen escaped.
func quoted(text string) string {
	var to strings.Builder
	to.WriteByte('"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			to.WriteByte('\\')
			to.WriteRune(c)
		case c == '\n':
			to.WriteString(`\n`)
		case c == '\r':
			to.WriteString(`\r`)
		case c == '\t':
			to.WriteString(`\t`)
		case c == 0:
			to.WriteString(`\0`)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&to, `\u{%x}`, c)
		default:
			to.WriteRune(c)
		}
	}
	to.WriteByte('"')
	return to.String()
}
