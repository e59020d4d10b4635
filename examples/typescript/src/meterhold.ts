import { setTimeout as sleep } from "node:timers/promises";

import {
  credentials,
  Metadata,
  type CallOptions,
  type ClientUnaryCall,
  type ServiceError,
} from "@grpc/grpc-js";

import { MeteringServiceClient } from "../gen/meterhold/v1/metering_service.js";
import { Failure, failureOf } from "./failure.js";

const ATTEMPT_TIMEOUT_MILLISECONDS = 3_000;
const OVERALL_TIMEOUT_MILLISECONDS = 10_000; // of a call, replays included
const TRAVEL_MILLISECONDS = ATTEMPT_TIMEOUT_MILLISECONDS; // what takes longer counts as lost

// What gRPC does by itself: spread calls over all servers, and repeat what was UNAVAILABLE. No
// timeout belongs here; each call sets its own.
const SERVICE_CONFIG = `{
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
}`;

export function connect(address: string): MeteringServiceClient {
  const plaintext = credentials.createInsecure(); // loopback only
  return new MeteringServiceClient(address, plaintext, {
    "grpc.service_config": SERVICE_CONFIG,
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 5_000,
  });
}

/** One attempt of a call. Rejects with a `Failure`. */
export type Call<Request, Response> = (request: Request, deadline: Date) => Promise<Response>;

/** Turns a method of the generated client, bound to it, from callbacks to promises. */
export function promised<Request, Response>(
  method: (
    request: Request,
    metadata: Metadata,
    options: Partial<CallOptions>,
    callback: (error: ServiceError | null, response: Response) => void,
  ) => ClientUnaryCall,
): Call<Request, Response> {
  return (request, deadline) =>
    new Promise((resolve, reject) => {
      method(request, new Metadata(), { deadline }, (error, response) => {
        if (error) {
          reject(failureOf(error));
        } else {
          resolve(response);
        }
      });
    });
}

/**
 * Makes a call, and makes it again with the very same request, and so with the same key, until the
 * call is done or refused, or the overall timeout has passed. Rejects with a `Failure`.
 *
 * Only for requests that have a key. A Debit without a `requestId` is charged again by each replay.
 */
export async function replayed<Request, Response>(
  call: Call<Request, Response>,
  request: Request,
): Promise<Response> {
  const end = Date.now() + OVERALL_TIMEOUT_MILLISECONDS;
  let unknownUntil = 0; // so long, an attempt that was not answered may still be carried out
  for (let wait = 100; ; wait = Math.min(2 * wait, 1_000)) {
    const begun = Date.now();
    const deadline = Math.min(begun + ATTEMPT_TIMEOUT_MILLISECONDS, end);
    try {
      return await call(request, new Date(deadline));
    } catch (error) {
      if (!(error instanceof Failure)) {
        throw error;
      }
      if (error.outcome === "refused" && begun > unknownUntil) {
        throw error;
      }
      if (error.outcome === "unknown") {
        unknownUntil = deadline + TRAVEL_MILLISECONDS;
      }
      // That this attempt did nothing says nothing of the ones before it.
      if (unknownUntil > 0) {
        error.outcome = "unknown";
      }
      if (Date.now() + wait >= end) {
        throw error;
      }
    }
    await sleep(wait);
  }
}
