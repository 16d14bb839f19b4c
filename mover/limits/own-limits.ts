import { readFile } from "node:fs/promises";
import { OwnRates } from "@holdfast/shared/contracts/settings";
import { Failure, isFailure, toFailureRecord } from "@holdfast/shared/domain/failure";
import { parseRate, type Rate } from "@holdfast/shared/domain/rate";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { Logger } from "@holdfast/shared/ports/logger";
import { createThrottle, type Throttle } from "@holdfast/shared/storage/throttle";
import type { StoreThrottles } from "@holdfast/shared/storage/throttled";
import { z } from "zod";
import type { DiskThrottles } from "../transport/throttled-disk.ts";

/** The limits of this process, whatever it works on: all its transfers share them. */
export type OwnLimits = {
  readonly disk: DiskThrottles;
  readonly store: StoreThrottles;
  readonly rates: () => OwnRates;
  /** What is absent is off. */
  readonly set: (rates: OwnRates) => void;
};

const whats = {
  read: "reading from disks",
  write: "writing to disks",
  diskRequests: "requests to disks",
  download: "downloads from the repository",
  upload: "uploads to the repository",
  storeRequests: "requests to the repository's storage",
} as const satisfies Record<keyof OwnRates, string>;

export function createOwnLimits(clock: Clock): OwnLimits {
  const make = (name: keyof typeof whats): Throttle =>
    createThrottle({ clock, what: `${whats[name]} by this mover` });
  const throttles = {
    read: make("read"),
    write: make("write"),
    diskRequests: make("diskRequests"),
    download: make("download"),
    upload: make("upload"),
    storeRequests: make("storeRequests"),
  };
  let current: OwnRates = {};
  return {
    disk: {
      read: [throttles.read],
      write: [throttles.write],
      requests: [throttles.diskRequests],
    },
    store: {
      download: [throttles.download],
      upload: [throttles.upload],
      requests: [throttles.storeRequests],
    },
    rates: () => current,
    set: (rates) => {
      current = rates;
      throttles.read.setRate(rates.read ?? "off");
      throttles.write.setRate(rates.write ?? "off");
      throttles.diskRequests.setRate(rates.diskRequests ?? "off");
      throttles.download.setRate(rates.download ?? "off");
      throttles.upload.setRate(rates.upload ?? "off");
      throttles.storeRequests.setRate(rates.storeRequests ?? "off");
    },
  };
}

const fileBytesMax = 64 * 1024;
const lookEveryMs = 2000;

/** As people write it: `{ "upload": "20M", "storeRequests": 100, "read": "off" }`. */
const FileRate = z.union([z.int().min(0), z.string().max(32)]).optional();
const LimitsFile = z.strictObject({
  read: FileRate,
  write: FileRate,
  diskRequests: FileRate,
  download: FileRate,
  upload: FileRate,
  storeRequests: FileRate,
} satisfies Record<keyof OwnRates, z.ZodType>);

/** Fails with `input.invalid`, which names the file and what is wrong in it. */
export function parseLimitsFile(path: string, text: string): OwnRates {
  try {
    const rates = LimitsFile.parse(JSON.parse(text));
    const parsed: Record<string, Rate> = {};
    for (const [name, rate] of Object.entries(rates)) {
      if (rate !== undefined)
        parsed[name] = typeof rate === "string" ? parseRate(name, rate) : rate;
    }
    return OwnRates.parse(parsed);
  } catch (cause) {
    if (cause instanceof z.ZodError) {
      const why = z.prettifyError(cause).replace(/^✖ /, "");
      throw new Failure("input.invalid", { message: `limits file ${path}: ${why}` });
    }
    const why = isFailure(cause) ? cause.message : String(cause);
    throw new Failure("input.invalid", { message: `limits file ${path}: ${why}`, cause });
  }
}

/**
 * Takes limits from a file, now and whenever it changes, over those given otherwise. Fails when the file can't be used now; later
 * the last good limits stay and the log says why.
 */
export async function followLimitsFile(o: {
  readonly path: string;
  readonly limits: OwnLimits;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}): Promise<{ readonly ended: Promise<void> }> {
  const given = o.limits.rates();
  let seen = "";

  async function look(): Promise<void> {
    const text = await readText(o.path);
    if (text === seen) return;
    seen = text;
    o.limits.set({ ...given, ...parseLimitsFile(o.path, text) });
    o.logger.info("limits", { ...o.limits.rates() });
  }

  async function follow(): Promise<void> {
    for (;;) {
      try {
        await o.clock.sleep(lookEveryMs, o.signal);
      } catch {
        return;
      }
      await look().catch((error: unknown) =>
        o.logger.warn("limits unchanged", { reason: toFailureRecord(error).message }),
      );
    }
  }

  await look();
  return { ended: follow() };
}

async function readText(path: string): Promise<string> {
  try {
    const bytes = await readFile(path);
    if (bytes.length <= fileBytesMax) return bytes.toString("utf8");
  } catch (cause) {
    throw new Failure("input.invalid", {
      message: `limits file ${path} cannot be read: ${String(cause)}`,
      cause,
    });
  }
  throw new Failure("input.invalid", {
    message: `limits file ${path} has more than ${fileBytesMax} bytes`,
  });
}
