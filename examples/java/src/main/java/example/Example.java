package example;

import com.google.protobuf.Duration;
import io.grpc.Status;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import meterhold.v1.MeteringServiceGrpc.MeteringServiceBlockingStub;
import meterhold.v1.MeteringServiceOuterClass.BalanceRequest;
import meterhold.v1.MeteringServiceOuterClass.DebitOnceRequest;
import meterhold.v1.MeteringServiceOuterClass.DebitRequest;
import meterhold.v1.MeteringServiceOuterClass.DebitStatus;
import meterhold.v1.MeteringServiceOuterClass.GrantOnceRequest;
import meterhold.v1.MeteringServiceOuterClass.ReserveRequest;
import meterhold.v1.MeteringServiceOuterClass.SettleRequest;
import meterhold.v1.Types.Usage;

/**
 * Buys credits, spends them, and meets what can go wrong on the way.
 *
 * <pre>
 * mvn compile
 * java -cp 'target/classes:target/dependency/*' example.Example [ACCOUNT]
 * </pre>
 *
 * METERHOLD_ADDRESS says where the server is. Keys are for ever: give each run a new account.
 */
public final class Example {

  private static final long CREDIT = 1_000_000; // micros
  private static final Duration FIVE_MINUTES = Duration.newBuilder().setSeconds(300).build();

  private static final Map<Failure.Outcome, String> ADVICE =
      Map.of(
          Failure.Outcome.REFUSED,
          "Nothing was done. Change the request, or top up.",
          Failure.Outcome.UNAVAILABLE,
          "Nothing was done. Send the same request with the same key later.",
          Failure.Outcome.UNKNOWN,
          "It may have been done. Only the same request with the same key can tell.");

  public static void main(String[] arguments) throws InterruptedException {
    String address = System.getenv().getOrDefault("METERHOLD_ADDRESS", "127.0.0.1:7717");
    String account = arguments.length > 0 ? arguments[0] : "example";
    try (Meterhold meterhold = new Meterhold(address)) {
      run(meterhold, account);
    } catch (Failure failure) {
      System.err.println(failure.outcome + ": " + failure.getMessage());
      System.err.println(ADVICE.get(failure.outcome));
      System.exit(1);
    }
  }

  private static void run(Meterhold meterhold, String account)
      throws Failure, InterruptedException {
    var order =
        GrantOnceRequest.newBuilder()
            .setAccount(account)
            .setAmountMicros(10 * CREDIT)
            .setIdempotencyKey(account + "-order-1001") // unique among all grants, of any account
            .build();
    var granted = meterhold.replayed(stub -> stub.grantOnce(order));
    print("grant order-1001: %s granted, %s available",
        granted.getEntry().getAmountMicros(), granted.getBalance().getAvailableMicros());

    var job =
        ReserveRequest.newBuilder()
            .setAccount(account)
            .setAmountMicros(4 * CREDIT)
            .setReservationId("job-7")
            .setTtl(FIVE_MINUTES)
            .build();
    var held = meterhold.replayed(stub -> stub.reserve(job));
    print("reserve job-7: %s held, %s available",
        held.getHeldMicros(), held.getBalance().getAvailableMicros());

    var usage =
        Usage.newBuilder()
            .setProvider("acme")
            .setModel("large")
            .setInputTokens(900)
            .setOutputTokens(120);
    var cost =
        SettleRequest.newBuilder()
            .setAccount(account)
            .setAmountMicros(2_750_000)
            .setReservationId("job-7")
            .setUsage(usage)
            .build();
    var settled = meterhold.replayed(stub -> stub.settle(cost));
    print("settle job-7: %s charged, %s released, %s available",
        settled.getChargedMicros(), settled.getReleasedMicros(),
        settled.getBalance().getAvailableMicros());

    var small =
        DebitRequest.newBuilder()
            .setAccount(account)
            .setAmountMicros(250_000)
            .setRequestId("call-3")
            .build();
    for (int time = 0; time < 2; time++) {
      var debited = meterhold.replayed(stub -> stub.debit(small));
      print("debit call-3: %s as entry %s, %s available",
          word(debited.getStatus()), debited.getEntry().getSeq(),
          debited.getBalance().getAvailableMicros());
    }

    var large =
        ReserveRequest.newBuilder()
            .setAccount(account)
            .setAmountMicros(50 * CREDIT)
            .setReservationId("job-8")
            .setTtl(FIVE_MINUTES)
            .build();
    var tooLarge = refusal(meterhold, stub -> stub.reserve(large), "INSUFFICIENT_CREDITS");
    print("reserve job-8: %s, %s, applied %s, %s available, %s required",
        word(tooLarge.outcome), tooLarge.reason, tooLarge.details.get("applied"),
        tooLarge.details.get("availableMicros"), tooLarge.details.get("requiredMicros"));

    // A refusal is not remembered: after a top-up the same request passes.
    var topUp =
        GrantOnceRequest.newBuilder()
            .setAccount(account)
            .setAmountMicros(50 * CREDIT)
            .setIdempotencyKey(account + "-order-1002")
            .build();
    var toppedUp = meterhold.replayed(stub -> stub.grantOnce(topUp));
    print("grant order-1002: %s granted, %s available",
        toppedUp.getEntry().getAmountMicros(), toppedUp.getBalance().getAvailableMicros());
    var heldNow = meterhold.replayed(stub -> stub.reserve(large));
    print("reserve job-8: %s held, %s available",
        heldNow.getHeldMicros(), heldNow.getBalance().getAvailableMicros());

    // One key, two requests: the second is refused.
    var other = small.toBuilder().setAmountMicros(300_000).build();
    var mismatch = refusal(meterhold, stub -> stub.debit(other), "IDEMPOTENCY_MISMATCH");
    print("debit call-3: %s, %s, applied %s, %s was %s",
        word(mismatch.outcome), mismatch.reason, mismatch.details.get("applied"),
        mismatch.details.get("field"), mismatch.details.get("original"));

    var invoice =
        DebitOnceRequest.newBuilder()
            .setAccount(account)
            .setAmountMicros(CREDIT)
            .setIdempotencyKey(account + "-invoice-9")
            .build();
    var charged = meterhold.replayed(losingTheFirstAnswer(stub -> stub.debitOnce(invoice)));
    print("debit invoice-9: %s as entry %s, %s available",
        word(charged.getStatus()), charged.getEntry().getSeq(),
        charged.getBalance().getAvailableMicros());

    var question = BalanceRequest.newBuilder().setAccount(account).build();
    var balance = meterhold.replayed(stub -> stub.balance(question)).getBalance();
    print("balance: %s available, %s held, %s remaining, %s spent",
        balance.getAvailableMicros(), balance.getHeldMicros(),
        balance.getRemainingMicros(), balance.getSpentMicros());
  }

  private static void print(String format, Object... values) {
    System.out.println(format.formatted(values));
  }

  private static String word(DebitStatus status) {
    return status.name().replace("DEBIT_STATUS_", "");
  }

  private static String word(Failure.Outcome outcome) {
    return outcome.name().toLowerCase(Locale.ROOT);
  }

  /** The failure of a call that has to be refused for that reason. Throws any other. */
  private static <R> Failure refusal(
      Meterhold meterhold, Function<MeteringServiceBlockingStub, R> call, String reason)
      throws Failure, InterruptedException {
    try {
      meterhold.replayed(call);
    } catch (Failure failure) {
      if (failure.reason.equals(reason)) {
        return failure;
      }
      throw failure;
    }
    throw new IllegalStateException("not refused: " + reason + "; is the account a new one?");
  }

  /**
   * Stands for a connection that breaks when the server has just committed: the call is made, but
   * its first answer is thrown away for an error that does not tell what happened.
   */
  private static <R> Function<MeteringServiceBlockingStub, R> losingTheFirstAnswer(
      Function<MeteringServiceBlockingStub, R> call) {
    var attempts = new AtomicInteger();
    return stub -> {
      R response = call.apply(stub);
      if (attempts.incrementAndGet() == 1) {
        throw Status.UNAVAILABLE.withDescription("the connection broke").asRuntimeException();
      }
      return response;
    };
  }
}
