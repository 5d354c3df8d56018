// Package policy removes what was not used for a time.
//
// Printing traps: larder_image_report.Log takes its place. The packages of `wit_component` are generated below `build/`
// by `larder policy build`; `GOWORK=$PWD/build/go/go.work` shows them to an editor.
package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"go.bytecodealliance.org/pkg/wit/types"
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
			"description": "What was not used for more days than this is removed."
		}
	},
	"additionalProperties": false
}`

// Describe describes the policy.
func Describe() larder_image_policy.Description {
	return larder_image_policy.Description{
		Name:         "@NAME@",
		Version:      "0.1.0",
		Summary:      "Removes what was not used for a time.",
		ConfigSchema: configSchema,
	}
}

// Evaluate decides about every image. Its error is the error of the run.
func Evaluate(request larder_image_policy.Request) error {
	limit, err := readConfig(request.Config)
	if err != nil {
		return err
	}
	images, usages := larder_image_images.List(), larder_image_usage.GetUsage(wit_types.None[[]string]())
	if images.IsErr() || usages.IsErr() {
		return errors.New("the images could not be listed")
	}
	// The oldest first: a run with a goal ends as soon as that is met.
	for index, image := range slices.Backward(images.Ok()) {
		// Usages are in the order of the images.
		isOld, reason := decide(image, usages.Ok()[index], request.Now, limit)
		if !isOld {
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

// Tells whether an image is removed, and why.
func decide(
	handle larder_image_types.ImageHandle, usage larder_image_usage.ImageUsage, now larder_image_types.Datetime, limit uint32,
) (bool, string) {
	if usage.Sandboxes > 0 || usage.Snapshots > 0 {
		return false, "in use"
	}
	if usage.Pinned {
		return false, "pinned by the operator"
	}
	if handle.LastUsedAt.IsNone() && handle.ArrivedAt.IsNone() {
		return false, "neither a last use nor an arrival is recorded"
	}
	// An arrival counts as a use.
	days := min(daysSince(handle.LastUsedAt, now), daysSince(handle.ArrivedAt, now))
	if days > uint64(limit) {
		return true, fmt.Sprintf("not used for %dd, which is longer than %dd", days, limit)
	}
	return false, fmt.Sprintf("not used for %dd, which is within %dd", days, limit)
}

// Returns whole days: 0 for an instant in the future, and the most there are for none.
func daysSince(instant wit_types.Option[larder_image_types.Datetime], now larder_image_types.Datetime) uint64 {
	if instant.IsNone() {
		return math.MaxUint64
	}
	at := instant.Some()
	if at.Seconds >= now.Seconds {
		return 0
	}
	seconds := uint64(now.Seconds) - uint64(at.Seconds)
	if at.Nanoseconds > now.Nanoseconds {
		seconds--
	}
	return seconds / 86_400
}

// Removes an image, or explains why it may not be removed. Beyond a cap of the grant, the whole plan is refused.
func removeBecause(reference, reason string) error {
	removed := larder_image_images.Remove(reference, false)
	if removed.IsErr() {
		switch failure := removed.Err(); {
		case failure.Tag() == larder_image_types.ErrorImageInUse:
			reason += "; kept because something uses it"
		case failure.Tag() != larder_image_types.ErrorDenied:
			return fmt.Errorf("%s could not be removed", reference)
		case failure.Denied().Right == larder_image_types.RightBudget:
			return errors.New(failure.Denied().Message)
		case failure.Denied().Right == larder_image_types.RightProtected:
			reason += "; kept because the operator protects it"
		default:
			reason += "; kept because the grant does not let this policy remove it"
		}
	}
	larder_image_report.Explain(reference, reason)
	return nil
}
