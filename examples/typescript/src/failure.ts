import { status, type ServiceError } from "@grpc/grpc-js";

import { ErrorInfo, Status } from "../gen/google/rpc/error.js";

/**
 * What a failed call has done.
 *
 * - `refused`: nothing, and the same request will not help by itself.
 * - `unavailable`: nothing; later, the same request may help.
 * - `unknown`: perhaps all; the same request with the same key tells.
 */
export type Outcome = "refused" | "unavailable" | "unknown";

export class Failure extends Error {
  constructor(
    public outcome: Outcome,
    message: string,
    /** Such as INSUFFICIENT_CREDITS; empty if Meterhold did not answer. */
    readonly reason = "",
    /** The numbers of the message, and `applied`. */
    readonly details: Readonly<Record<string, string>> = {},
  ) {
    super(message);
  }
}

// Libraries and proxies answer these before they let a request through. Any other code without a
// reason, UNAVAILABLE included, may hide an answer that got lost.
const REFUSED_BEFORE_THE_SERVER = new Set([
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.PERMISSION_DENIED,
  status.UNAUTHENTICATED,
  status.FAILED_PRECONDITION,
  status.OUT_OF_RANGE,
  status.UNIMPLEMENTED,
]);

const WORTH_WAITING = new Set([status.UNAVAILABLE, status.DEADLINE_EXCEEDED]);

export function failureOf(error: ServiceError): Failure {
  const info = errorInfo(error);
  if (!info) {
    const refused = REFUSED_BEFORE_THE_SERVER.has(error.code);
    return new Failure(refused ? "refused" : "unknown", error.message);
  }
  return new Failure(outcomeOf(info, error.code), error.message, info.reason, info.metadata);
}

function outcomeOf(info: ErrorInfo, code: status): Outcome {
  if (info.metadata.applied !== "NO") {
    return "unknown";
  }
  return WORTH_WAITING.has(code) ? "unavailable" : "refused";
}

function errorInfo(error: ServiceError): ErrorInfo | undefined {
  const [packed] = error.metadata.get("grpc-status-details-bin");
  if (!(packed instanceof Buffer)) {
    return undefined;
  }
  return Status.decode(packed)
    .details.filter((detail) => detail.typeUrl.endsWith("/google.rpc.ErrorInfo"))
    .map((detail) => ErrorInfo.decode(detail.value))
    .find((info) => info.domain === "meterhold");
}
