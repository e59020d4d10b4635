// Buys credits, spends them, and meets what can go wrong on the way.
//
//     npm start -- [ACCOUNT]    METERHOLD_ADDRESS says where the server is
//
// Keys are for ever: give each run a new account, or its calls are replays.

import {
  BalanceRequest,
  DebitOnceRequest,
  DebitRequest,
  debitStatusToJSON,
  GrantOnceRequest,
  ReserveRequest,
  SettleRequest,
  type DebitStatus,
} from "../gen/meterhold/v1/metering_service.js";
import { Failure, type Outcome } from "./failure.js";
import { connect, promised, replayed, type Call } from "./meterhold.js";

const CREDIT = 1_000_000n; // micros
const FIVE_MINUTES = { seconds: 300n };

const ADVICE: Record<Outcome, string> = {
  refused: "Nothing was done. Change the request, or top up.",
  unavailable: "Nothing was done. Send the same request with the same key later.",
  unknown: "It may have been done. Only the same request with the same key can tell.",
};

const client = connect(process.env["METERHOLD_ADDRESS"] || "127.0.0.1:7717");
try {
  await run(process.argv[2] ?? "example");
} catch (error) {
  if (!(error instanceof Failure)) {
    throw error;
  }
  console.error(`${error.outcome}: ${error.message}\n${ADVICE[error.outcome]}`);
  process.exitCode = 1;
} finally {
  client.close();
}

async function run(account: string): Promise<void> {
  const grantOnce = promised(client.grantOnce.bind(client));
  const reserve = promised(client.reserve.bind(client));
  const settle = promised(client.settle.bind(client));
  const debit = promised(client.debit.bind(client));
  const debitOnce = promised(client.debitOnce.bind(client));
  const balance = promised(client.balance.bind(client));

  const order = GrantOnceRequest.create({
    account,
    amountMicros: 10n * CREDIT,
    idempotencyKey: `${account}-order-1001`, // unique among all grants, whatever the account
  });
  const granted = await replayed(grantOnce, order);
  console.log(
    `grant order-1001: ${granted.entry?.amountMicros} granted,`,
    `${granted.balance?.availableMicros} available`,
  );

  const job = ReserveRequest.create({
    account,
    amountMicros: 4n * CREDIT,
    reservationId: "job-7",
    ttl: FIVE_MINUTES,
  });
  const held = await replayed(reserve, job);
  console.log(
    `reserve job-7: ${held.heldMicros} held, ${held.balance?.availableMicros} available`,
  );

  const cost = SettleRequest.create({
    account,
    amountMicros: 2_750_000n,
    reservationId: "job-7",
    usage: { provider: "acme", model: "large", inputTokens: 900n, outputTokens: 120n },
  });
  const settled = await replayed(settle, cost);
  console.log(
    `settle job-7: ${settled.chargedMicros} charged, ${settled.releasedMicros} released,`,
    `${settled.balance?.availableMicros} available`,
  );

  const small = DebitRequest.create({ account, amountMicros: 250_000n, requestId: "call-3" });
  for (let time = 0; time < 2; time += 1) {
    const debited = await replayed(debit, small);
    console.log(
      `debit call-3: ${word(debited.status)} as entry ${debited.entry?.seq},`,
      `${debited.balance?.availableMicros} available`,
    );
  }

  const large = ReserveRequest.create({
    account,
    amountMicros: 50n * CREDIT,
    reservationId: "job-8",
    ttl: FIVE_MINUTES,
  });
  const tooLarge = await refusal(replayed(reserve, large), "INSUFFICIENT_CREDITS");
  console.log(
    `reserve job-8: ${tooLarge.outcome}, ${tooLarge.reason},`,
    `applied ${tooLarge.details["applied"]},`,
    `${tooLarge.details["availableMicros"]} available,`,
    `${tooLarge.details["requiredMicros"]} required`,
  );

  // A refusal is not remembered: after a top-up the same request passes.
  const topUp = GrantOnceRequest.create({
    account,
    amountMicros: 50n * CREDIT,
    idempotencyKey: `${account}-order-1002`,
  });
  const toppedUp = await replayed(grantOnce, topUp);
  console.log(
    `grant order-1002: ${toppedUp.entry?.amountMicros} granted,`,
    `${toppedUp.balance?.availableMicros} available`,
  );
  const heldNow = await replayed(reserve, large);
  console.log(
    `reserve job-8: ${heldNow.heldMicros} held, ${heldNow.balance?.availableMicros} available`,
  );

  // One key, two requests: the second is refused.
  const other = DebitRequest.create({ account, amountMicros: 300_000n, requestId: "call-3" });
  const mismatch = await refusal(replayed(debit, other), "IDEMPOTENCY_MISMATCH");
  console.log(
    `debit call-3: ${mismatch.outcome}, ${mismatch.reason},`,
    `applied ${mismatch.details["applied"]},`,
    `${mismatch.details["field"]} was ${mismatch.details["original"]}`,
  );

  const invoice = DebitOnceRequest.create({
    account,
    amountMicros: 1n * CREDIT,
    idempotencyKey: `${account}-invoice-9`,
  });
  const charged = await replayed(losingTheFirstAnswer(debitOnce), invoice);
  console.log(
    `debit invoice-9: ${word(charged.status)} as entry ${charged.entry?.seq},`,
    `${charged.balance?.availableMicros} available`,
  );

  const now = (await replayed(balance, BalanceRequest.create({ account }))).balance;
  console.log(
    `balance: ${now?.availableMicros} available, ${now?.heldMicros} held,`,
    `${now?.remainingMicros} remaining, ${now?.spentMicros} spent`,
  );
}

function word(status: DebitStatus): string {
  return debitStatusToJSON(status).replace("DEBIT_STATUS_", "");
}

/** The failure of a call that has to be refused for that reason; throws everything else. */
async function refusal(answer: Promise<unknown>, reason: string): Promise<Failure> {
  try {
    await answer;
  } catch (error) {
    if (error instanceof Failure && error.reason === reason) {
      return error;
    }
    throw error;
  }
  throw new Error(`not refused: ${reason}; is the account a new one?`);
}

/**
 * Stands for a connection that breaks when the server has just committed: the call is made, but its
 * first answer is thrown away for a failure that does not tell what happened.
 */
function losingTheFirstAnswer<Request, Response>(
  call: Call<Request, Response>,
): Call<Request, Response> {
  let lost = false;
  return async (request, deadline) => {
    const response = await call(request, deadline);
    if (!lost) {
      lost = true;
      throw new Failure("unknown", "the connection broke");
    }
    return response;
  };
}
