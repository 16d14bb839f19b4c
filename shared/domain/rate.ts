import { Failure } from "./failure.ts";

/** So many a second, or no limit. A rate of 0 lets nothing through: what would need it is refused. */
export type Rate = number | "off";

const factors: Readonly<Record<string, number>> = {
  "": 1,
  k: 1024,
  m: 1024 ** 2,
  g: 1024 ** 3,
  t: 1024 ** 4,
};

/** `off`, `0`, `500K`, `100M`, `2G`: bytes (or requests) a second, in binary units. Fails with `input.invalid`. */
export function parseRate(what: string, text: string): Rate {
  if (text === "off") return "off";
  const match = /^(\d{1,12})(?:([kmgt])(?:i?b)?)?(?:\/s)?$/i.exec(text.trim());
  const rate =
    Number(match?.[1] ?? Number.NaN) * (factors[(match?.[2] ?? "").toLowerCase()] ?? Number.NaN);
  if (Number.isSafeInteger(rate)) return rate;
  throw new Failure("input.invalid", {
    message: `${what} ${JSON.stringify(text)} is not a rate; write 100M for 100 MiB a second, off for no limit, 0 for nothing at all`,
  });
}
