package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const (
	attemptTimeout = 3 * time.Second  // of one attempt
	overallTimeout = 10 * time.Second // of a call, replays included
	travelTime     = attemptTimeout   // what takes longer to arrive counts as lost
)

// What gRPC does by itself: spread calls over all servers, and repeat what was UNAVAILABLE. No
// timeout belongs here; each call sets its own.
const serviceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [
    {
      "name": [{}],
      "retryPolicy": {
        "maxAttempts": 4,
        "initialBackoff": "0.02s",
        "maxBackoff": "0.2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"]
      }
    }
  ],
  "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1}
}`

func connect(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // plaintext: loopback only
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:    20 * time.Second,
			Timeout: 5 * time.Second,
		}),
	)
}

// call is a unary method of a generated client, such as client.Reserve.
type call[Request, Response any] func(context.Context, Request, ...grpc.CallOption) (Response, error)

// replayed makes a call, and makes it again with the very same request, and so with the same key,
// until it is done or refused, or overallTimeout has passed. Its error is a *Failure.
//
// Only for requests that have a key. A Debit without a request_id is charged again by each replay.
func replayed[Request, Response any](
	ctx context.Context, method call[Request, Response], request Request,
) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, overallTimeout)
	defer cancel()
	var unknownUntil time.Time // so long, an attempt that was not answered may still be carried out
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		begun := time.Now()
		response, err := attempt(ctx, method, request)
		if err == nil {
			return response, nil
		}
		failure := failureOf(err)
		if failure.Outcome == Refused && begun.After(unknownUntil) {
			return response, failure
		}
		if failure.Outcome == Unknown {
			unknownUntil = begun.Add(attemptTimeout + travelTime)
		}
		// That this attempt did nothing says nothing of the ones before it.
		if !unknownUntil.IsZero() {
			failure.Outcome = Unknown
		}
		select {
		case <-ctx.Done():
			return response, failure
		case <-time.After(wait):
		}
	}
}

func attempt[Request, Response any](
	ctx context.Context, method call[Request, Response], request Request,
) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return method(ctx, request)
}

// Outcome is what a failed call has done.
type Outcome string

const (
	Refused     Outcome = "refused"     // nothing, and the same request will not help by itself
	Unavailable Outcome = "unavailable" // nothing; later, the same request may help
	Unknown     Outcome = "unknown"     // perhaps all; the same key tells
)

// Failure is the error of a call.
type Failure struct {
	Outcome Outcome
	Reason  string            // such as INSUFFICIENT_CREDITS; empty if Meterhold did not answer
	Details map[string]string // the numbers of the message, and "applied"
	err     error
}

func (f *Failure) Error() string { return fmt.Sprintf("%s: %v", f.Outcome, f.err) }
func (f *Failure) Unwrap() error { return f.err }

func failureOf(err error) *Failure {
	answered, _ := status.FromError(err)
	failure := &Failure{Outcome: Unknown, err: err}
	for _, detail := range answered.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "meterhold" {
			failure.Reason, failure.Details = info.GetReason(), info.GetMetadata()
		}
	}
	if failure.Reason == "" && refusedBeforeTheServer(answered.Code()) {
		failure.Outcome = Refused
	}
	if failure.Details["applied"] == "NO" {
		failure.Outcome = Refused
		if answered.Code() == codes.Unavailable || answered.Code() == codes.DeadlineExceeded {
			failure.Outcome = Unavailable
		}
	}
	return failure
}

// Codes that libraries and proxies answer before they let a request through. Any other code without
// a reason, UNAVAILABLE included, may hide an answer that got lost.
func refusedBeforeTheServer(code codes.Code) bool {
	switch code {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied,
		codes.Unauthenticated, codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented:
		return true
	}
	return false
}
