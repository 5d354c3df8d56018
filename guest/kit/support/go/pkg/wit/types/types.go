// Package wit_types holds the types of WIT that Go has no types for, under the names that the generator of the
// bindings uses.
package wit_types

// The cases of an Option and of a Result.
const (
	OptionNone uint8 = iota
	OptionSome
)

const (
	ResultOk uint8 = iota
	ResultErr
)

// Unit is the value where there is nothing to say.
type Unit struct{}

// Tuple2 is two values.
type Tuple2[A, B any] struct {
	F0 A
	F1 B
}

// Option is a value or none. Its zero value is none.
type Option[T any] struct {
	value *T
}

// None is no value.
func None[T any]() Option[T] { return Option[T]{} }

// Some is a value.
func Some[T any](value T) Option[T] { return Option[T]{&value} }

// Tag is OptionNone or OptionSome.
func (o Option[T]) Tag() uint8 {
	if o.value == nil {
		return OptionNone
	}
	return OptionSome
}

// IsSome is whether there is a value.
func (o Option[T]) IsSome() bool { return o.value != nil }

// IsNone is whether there is no value.
func (o Option[T]) IsNone() bool { return o.value == nil }

// Some gives the value, and panics where there is none.
func (o Option[T]) Some() T { return *o.value }

// SomeOr gives the value, or another one where there is none.
func (o Option[T]) SomeOr(other T) T {
	if o.value == nil {
		return other
	}
	return *o.value
}

// Result is the value of a call that succeeded or the error of one that failed.
type Result[T, E any] struct {
	ok      T
	err     E
	isError bool
}

// Ok is the value of a call that succeeded.
func Ok[T, E any](value T) Result[T, E] { return Result[T, E]{ok: value} }

// Err is the error of a call that failed.
func Err[T, E any](value E) Result[T, E] { return Result[T, E]{err: value, isError: true} }

// Tag is ResultOk or ResultErr.
func (r Result[T, E]) Tag() uint8 {
	if r.isError {
		return ResultErr
	}
	return ResultOk
}

// IsOk is whether the call succeeded.
func (r Result[T, E]) IsOk() bool { return !r.isError }

// IsErr is whether the call failed.
func (r Result[T, E]) IsErr() bool { return r.isError }

// Ok gives the value, and panics where the call failed.
func (r Result[T, E]) Ok() T {
	if r.isError {
		panic("the result is an error")
	}
	return r.ok
}

// Err gives the error, and panics where the call succeeded.
func (r Result[T, E]) Err() E {
	if !r.isError {
		panic("the result is not an error")
	}
	return r.err
}
