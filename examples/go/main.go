// Command example buys credits, spends them, and meets what can go wrong on the way.
//
//	go run . [ACCOUNT]    # METERHOLD_ADDRESS says where the server is
//
// Keys are for ever: give each run a new account, or its calls are replays.
package main

//go:generate buf generate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	meterholdv1 "example.com/meterhold/gen/meterhold/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

const credit = 1_000_000 // micros

var advice = map[Outcome]string{
	Refused:     "Nothing was done. Change the request, or top up.",
	Unavailable: "Nothing was done. Send the same request with the same key later.",
	Unknown:     "It may have been done. Only the same request with the same key can tell.",
}

func main() {
	address := os.Getenv("METERHOLD_ADDRESS")
	if address == "" {
		address = "127.0.0.1:7717"
	}
	account := "example"
	if len(os.Args) > 1 {
		account = os.Args[1]
	}
	if err := run(context.Background(), address, account); err != nil {
		fmt.Fprintln(os.Stderr, err)
		var failure *Failure
		if errors.As(err, &failure) {
			fmt.Fprintln(os.Stderr, advice[failure.Outcome])
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, address, account string) error {
	connection, err := connect(address)
	if err != nil {
		return err
	}
	defer connection.Close()
	client := meterholdv1.NewMeteringServiceClient(connection)

	granted, err := replayed(ctx, client.GrantOnce, &meterholdv1.GrantOnceRequest{
		Account:        account,
		AmountMicros:   10 * credit,
		IdempotencyKey: account + "-order-1001", // unique among all grants, whatever the account
	})
	if err != nil {
		return err
	}
	fmt.Printf("grant order-1001: %d granted, %d available\n",
		granted.GetEntry().GetAmountMicros(), granted.GetBalance().GetAvailableMicros())

	held, err := replayed(ctx, client.Reserve, &meterholdv1.ReserveRequest{
		Account:       account,
		AmountMicros:  4 * credit,
		ReservationId: "job-7",
		Ttl:           durationpb.New(5 * time.Minute),
	})
	if err != nil {
		return err
	}
	fmt.Printf("reserve job-7: %d held, %d available\n",
		held.GetHeldMicros(), held.GetBalance().GetAvailableMicros())

	settled, err := replayed(ctx, client.Settle, &meterholdv1.SettleRequest{
		Account:       account,
		AmountMicros:  2_750_000,
		ReservationId: "job-7",
		Usage: &meterholdv1.Usage{
			Provider: "acme", Model: "large", InputTokens: 900, OutputTokens: 120,
		},
	})
	if err != nil {
		return err
	}
	fmt.Printf("settle job-7: %d charged, %d released, %d available\n", settled.GetChargedMicros(),
		settled.GetReleasedMicros(), settled.GetBalance().GetAvailableMicros())

	for range 2 {
		debited, err := replayed(ctx, client.Debit, &meterholdv1.DebitRequest{
			Account: account, AmountMicros: 250_000, RequestId: "call-3",
		})
		if err != nil {
			return err
		}
		fmt.Printf("debit call-3: %s as entry %d, %d available\n", word(debited.GetStatus()),
			debited.GetEntry().GetSeq(), debited.GetBalance().GetAvailableMicros())
	}

	large := &meterholdv1.ReserveRequest{
		Account:       account,
		AmountMicros:  50 * credit,
		ReservationId: "job-8",
		Ttl:           durationpb.New(5 * time.Minute),
	}
	_, err = replayed(ctx, client.Reserve, large)
	tooLarge, err := refusal(err, "INSUFFICIENT_CREDITS")
	if err != nil {
		return err
	}
	fmt.Printf("reserve job-8: %s, %s, applied %s, %s available, %s required\n",
		tooLarge.Outcome, tooLarge.Reason, tooLarge.Details["applied"],
		tooLarge.Details["availableMicros"], tooLarge.Details["requiredMicros"])

	// A refusal is not remembered: after a top-up the same request passes.
	topUp, err := replayed(ctx, client.GrantOnce, &meterholdv1.GrantOnceRequest{
		Account: account, AmountMicros: 50 * credit, IdempotencyKey: account + "-order-1002",
	})
	if err != nil {
		return err
	}
	fmt.Printf("grant order-1002: %d granted, %d available\n",
		topUp.GetEntry().GetAmountMicros(), topUp.GetBalance().GetAvailableMicros())
	held, err = replayed(ctx, client.Reserve, large)
	if err != nil {
		return err
	}
	fmt.Printf("reserve job-8: %d held, %d available\n",
		held.GetHeldMicros(), held.GetBalance().GetAvailableMicros())

	// One key, two requests: the second is refused.
	_, err = replayed(ctx, client.Debit, &meterholdv1.DebitRequest{
		Account: account, AmountMicros: 300_000, RequestId: "call-3",
	})
	mismatch, err := refusal(err, "IDEMPOTENCY_MISMATCH")
	if err != nil {
		return err
	}
	fmt.Printf("debit call-3: %s, %s, applied %s, %s was %s\n",
		mismatch.Outcome, mismatch.Reason, mismatch.Details["applied"],
		mismatch.Details["field"], mismatch.Details["original"])

	charged, err := replayed(ctx, losingTheFirstAnswer(client.DebitOnce),
		&meterholdv1.DebitOnceRequest{
			Account: account, AmountMicros: 1 * credit, IdempotencyKey: account + "-invoice-9",
		})
	if err != nil {
		return err
	}
	fmt.Printf("debit invoice-9: %s as entry %d, %d available\n", word(charged.GetStatus()),
		charged.GetEntry().GetSeq(), charged.GetBalance().GetAvailableMicros())

	now, err := replayed(ctx, client.Balance, &meterholdv1.BalanceRequest{Account: account})
	if err != nil {
		return err
	}
	balance := now.GetBalance()
	fmt.Printf("balance: %d available, %d held, %d remaining, %d spent\n",
		balance.GetAvailableMicros(), balance.GetHeldMicros(),
		balance.GetRemainingMicros(), balance.GetSpentMicros())
	return nil
}

func word(status meterholdv1.DebitStatus) string {
	return strings.TrimPrefix(status.String(), "DEBIT_STATUS_")
}

// refusal is the failure of a call that has to be refused for that reason, or else what happened.
func refusal(err error, reason string) (*Failure, error) {
	var failure *Failure
	if errors.As(err, &failure) && failure.Reason == reason {
		return failure, nil
	}
	if err == nil {
		err = fmt.Errorf("not refused: %s; is the account a new one?", reason)
	}
	return nil, err
}

// losingTheFirstAnswer stands for a connection that breaks when the server has just committed: the
// call is made, but its first answer is thrown away for an error that does not tell what happened.
func losingTheFirstAnswer[Request, Response any](
	method call[Request, Response],
) call[Request, Response] {
	lost := false
	return func(
		ctx context.Context, request Request, options ...grpc.CallOption,
	) (Response, error) {
		response, err := method(ctx, request, options...)
		if err == nil && !lost {
			lost = true
			err = status.Error(codes.Unavailable, "the connection broke")
		}
		return response, err
	}
}
