// Package policy removes what nobody used for a time.
//
// Printing traps: larder_image_report.Log takes its place. The packages of `wit_component` are generated below `build/`
// by `larder policy build`; `GOWORK=$PWD/build/go/go.work` shows them to an editor.
package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"wit_component/larder_image_images"
	"wit_component/larder_image_policy"
	"wit_component/larder_image_report"
	"wit_component/larder_image_types"
	"wit_component/larder_image_usage"
)

const configSchema = `{
	"type": "object",
	"properties": {
		"max-age-days": {
			"type": "integer",
			"minimum": 0,
			"maximum": 4294967295,
			"default": 30,
			"description": "What was not used for more days than this goes."
		}
	},
	"additionalProperties": false
}`

// Describe says what the policy is.
func Describe() larder_image_policy.Description {
	return larder_image_policy.Description{
		Name:         "@NAME@",
		Version:      "0.1.0",
		Summary:      "Removes what nobody used for a time.",
		ConfigSchema: configSchema,
	}
}

// Evaluate decides about every image. Its error is that of the run.
func Evaluate(request larder_image_policy.Request) error {
	limit, err := readConfig(request.Config)
	if err != nil {
		return err
	}
	images, usages := larder_image_images.List(), larder_image_usage.ListUsage()
	if images.IsErr() || usages.IsErr() {
		return errors.New("the images could not be listed")
	}
	// Usages stand in the order of the images.
	for index, image := range images.Ok() {
		goes, reason := decide(image, usages.Ok()[index], request.Now, limit)
		if !goes {
			larder_image_report.Explain(image.Reference, reason)
		} else if err := removeBecause(image.Reference, reason); err != nil {
			return err
		}
	}
	return nil
}

func readConfig(document string) (uint32, error) {
	var config map[string]any
	if err := json.Unmarshal([]byte(document), &config); err != nil {
		return 0, fmt.Errorf("config of @NAME@: %w", err)
	}
	limit := uint32(30)
	for key, value := range config {
		if key != "max-age-days" {
			return 0, fmt.Errorf("config of @NAME@: unknown key `%s`: the only key is `max-age-days`", key)
		}
		days, isNumber := value.(float64)
		if !isNumber || days != math.Trunc(days) || days < 0 || days > math.MaxUint32 {
			return 0, errors.New("config of @NAME@: `max-age-days`: expected a whole number of days")
		}
		limit = uint32(days)
	}
	return limit, nil
}

// Whether an image goes, and why.
func decide(
	handle larder_image_types.ImageHandle, usage larder_image_usage.ImageUsage, now larder_image_types.Datetime, limit uint32,
) (bool, string) {
	if usage.Sandboxes > 0 || usage.Snapshots > 0 {
		return false, "in use"
	}
	if usage.Pinned {
		return false, "pinned by the operator"
	}
	verb, touched := "last used", handle.LastUsedAt
	if touched.IsNone() {
		verb, touched = "never used and created", handle.CreatedAt
	}
	if touched.IsNone() {
		return false, "neither a last use nor a creation is on record"
	}
	days := daysSince(touched.Some(), now)
	if days > uint64(limit) {
		return true, fmt.Sprintf("%s %dd ago, which is longer than %dd", verb, days, limit)
	}
	return false, fmt.Sprintf("%s %dd ago, which is within %dd", verb, days, limit)
}

// Whole days; none for an instant in the future.
func daysSince(touched, now larder_image_types.Datetime) uint64 {
	if touched.Seconds >= now.Seconds {
		return 0
	}
	seconds := uint64(now.Seconds) - uint64(touched.Seconds)
	if touched.Nanoseconds > now.Nanoseconds {
		seconds--
	}
	return seconds / 86_400
}

// Removes an image, or explains why it may not. Past a cap of the grant, the whole plan is refused.
func removeBecause(reference, reason string) error {
	removed := larder_image_images.Remove(reference, false)
	if removed.IsOk() {
		larder_image_report.Explain(reference, reason)
		return nil
	}
	switch failure := removed.Err(); failure.Tag() {
	case larder_image_types.ErrorImageInUse:
		larder_image_report.Explain(reference, reason+"; kept because something uses it")
		return nil
	case larder_image_types.ErrorDenied:
		denial := failure.Denied()
		if denial.Right == larder_image_types.RightBudget {
			return errors.New(denial.Message)
		}
		larder_image_report.Explain(reference, reason+"; kept because "+denial.Message)
		return nil
	}
	return fmt.Errorf("%s could not be removed", reference)
}
