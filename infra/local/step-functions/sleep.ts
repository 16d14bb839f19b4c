import { Suspended } from "./state-error.ts";

/** The longest that a timer of Node takes. */
const timerMsMax = 2 ** 31 - 1;

/** Waits for a moment in milliseconds since 1970; throws Suspended when the signal is aborted. */
export async function sleepUntil(
  endMs: number,
  now: () => number,
  signal: AbortSignal,
): Promise<void> {
  for (let leftMs = endMs - now(); leftMs > 0; leftMs = endMs - now()) {
    await sleep(Math.min(leftMs, timerMsMax), signal);
  }
  if (signal.aborted) throw new Suspended();
}

function sleep(delayMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(new Suspended());
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      if (signal.aborted) reject(new Suspended());
      else resolve();
    };
    const timer = setTimeout(end, delayMs);
    signal.addEventListener("abort", end, { once: true });
  });
}
