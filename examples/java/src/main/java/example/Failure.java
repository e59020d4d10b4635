package example;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** A call that failed, and what it has done. */
final class Failure extends Exception {

  enum Outcome {
    /** Nothing, and the same request will not help by itself. */
    REFUSED,
    /** Nothing; later, the same request may help. */
    UNAVAILABLE,
    /** Perhaps all; the same request with the same key tells. */
    UNKNOWN
  }

  // Libraries and proxies answer these before they let a request through. Any other code without a
  // reason, UNAVAILABLE included, may hide an answer that got lost.
  private static final Set<Status.Code> REFUSED_BEFORE_THE_SERVER =
      Set.of(
          Status.Code.INVALID_ARGUMENT,
          Status.Code.NOT_FOUND,
          Status.Code.ALREADY_EXISTS,
          Status.Code.PERMISSION_DENIED,
          Status.Code.UNAUTHENTICATED,
          Status.Code.FAILED_PRECONDITION,
          Status.Code.OUT_OF_RANGE,
          Status.Code.UNIMPLEMENTED);

  private static final Set<Status.Code> WORTH_WAITING =
      Set.of(Status.Code.UNAVAILABLE, Status.Code.DEADLINE_EXCEEDED);

  final Outcome outcome;

  /** Such as INSUFFICIENT_CREDITS; empty if Meterhold did not answer. */
  final String reason;

  /** The numbers of the message, and {@code applied}. */
  final Map<String, String> details;

  private Failure(Outcome outcome, String reason, Map<String, String> details, Throwable cause) {
    super(cause.getMessage(), cause);
    this.outcome = outcome;
    this.reason = reason;
    this.details = details;
  }

  static Failure of(StatusRuntimeException error) {
    Status.Code code = error.getStatus().getCode();
    Optional<ErrorInfo> info = errorInfo(error);
    if (info.isEmpty()) {
      boolean refused = REFUSED_BEFORE_THE_SERVER.contains(code);
      return new Failure(refused ? Outcome.REFUSED : Outcome.UNKNOWN, "", Map.of(), error);
    }
    Map<String, String> details = info.get().getMetadataMap();
    Outcome outcome = WORTH_WAITING.contains(code) ? Outcome.UNAVAILABLE : Outcome.REFUSED;
    if (!"NO".equals(details.get("applied"))) {
      outcome = Outcome.UNKNOWN;
    }
    return new Failure(outcome, info.get().getReason(), details, error);
  }

  /** The same failure of a call of which an earlier attempt may have been carried out. */
  Failure afterAnUnknownAttempt() {
    return new Failure(Outcome.UNKNOWN, reason, details, getCause());
  }

  private static Optional<ErrorInfo> errorInfo(StatusRuntimeException error) {
    com.google.rpc.Status status = StatusProto.fromThrowable(error);
    for (Any detail : status.getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        try {
          ErrorInfo info = detail.unpack(ErrorInfo.class);
          if (info.getDomain().equals("meterhold")) {
            return Optional.of(info);
          }
        } catch (InvalidProtocolBufferException unreadable) {
          return Optional.empty();
        }
      }
    }
    return Optional.empty();
  }
}
