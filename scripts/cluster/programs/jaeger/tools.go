//go:build tools

// Package jaeger pins the Jaeger that traces are sent to.
package jaeger

import _ "github.com/jaegertracing/jaeger/cmd/all-in-one"
