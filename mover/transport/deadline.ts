import { Failure } from "@holdfast/shared/domain/failure";

/** One limit of time and one signal over several waits; `close` it in every path. */
export type Deadline = {
  /** The promise's result, or the failure if time or signal come first. What comes late goes to `discard`. */
  race<Result>(promise: Promise<Result>, discard?: (late: Result) => void): Promise<Result>;
  close(): void;
};

export function startDeadline(options: {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** What took too long, for the message. */
  readonly what: string;
}): Deadline {
  const { timeoutMs, signal, what } = options;
  const over = Promise.withResolvers<never>();
  over.promise.catch(() => undefined);
  const timer = setTimeout(() => {
    const message = `${what} took longer than ${timeoutMs} ms`;
    over.reject(new Failure("network.timeout", { message }));
  }, timeoutMs);
  const onAbort = (): void => over.reject(signal?.reason);
  if (signal?.aborted === true) onAbort();
  else signal?.addEventListener("abort", onAbort, { once: true });
  return {
    race(promise, discard) {
      let isLate = false;
      promise.then(
        (result) => {
          if (isLate) discard?.(result);
        },
        () => undefined,
      );
      const lost = over.promise.catch((error) => {
        isLate = true;
        throw error;
      });
      return Promise.race([promise, lost]);
    },
    close() {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
    },
  };
}
