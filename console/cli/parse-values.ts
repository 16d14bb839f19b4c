import { Failure } from "@holdfast/shared/domain/failure";

const millisecondsByUnit: Readonly<Record<string, number>> = {
  "": 1000,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** `90`, `90s`, `5m`, `2h`, `1d` in milliseconds. */
export function parseTimeMs(option: string, text: string): number {
  const match = /^(\d{1,9})([smhd]?)$/.exec(text.trim());
  const unit = millisecondsByUnit[match?.[2] ?? ""];
  if (match?.[1] === undefined || unit === undefined) {
    throw new Failure("input.invalid", {
      message: `${option} ${JSON.stringify(text)} is not a time; write 90, 30s, 5m or 2h`,
    });
  }
  return Number(match[1]) * unit;
}

const bytesByUnit: Readonly<Record<string, number>> = {
  "": 1,
  k: 1024,
  m: 1024 ** 2,
  g: 1024 ** 3,
  t: 1024 ** 4,
};

/** `4096`, `64K`, `256M`, `2G` in bytes: binary units, as in `256 MiB`. */
export function parseBytes(option: string, text: string): number {
  const match = /^(\d{1,12})(?:([kmgt])(?:i?b)?)?$/i.exec(text.trim());
  const unit = bytesByUnit[(match?.[2] ?? "").toLowerCase()];
  const bytes = Number(match?.[1]) * (unit ?? Number.NaN);
  if (Number.isSafeInteger(bytes)) return bytes;
  throw new Failure("input.invalid", {
    message: `${option} ${JSON.stringify(text)} is not a size; write 4096, 64K, 256M or 2G`,
  });
}

/** `5%` or `0.5%` as 0.05 or 0.005: without the sign it would not be clear what 1 means. */
export function parsePercentage(option: string, text: string): number {
  const percent = Number(/^(\d{1,3}(?:\.\d{1,6})?)%$/.exec(text.trim())?.[1] ?? Number.NaN);
  if (percent > 0 && percent <= 100) return percent / 100;
  throw new Failure("input.invalid", {
    message: `${option} ${JSON.stringify(text)} is not a share above 0% and up to 100%; write 5%`,
  });
}

export function parseWholeNumber(
  option: string,
  text: string,
  range: { readonly min: number; readonly max: number },
): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= range.min && value <= range.max) return value;
  throw new Failure("input.invalid", {
    message: `${option} ${JSON.stringify(text)} is not a whole number from ${range.min} to ${range.max}`,
  });
}

export type SshAddress = { readonly user: string; readonly host: string; readonly port: number };

/** `ssh://user@host:port`, also with an IPv6 host in brackets; user `root` and port 22 when left out. */
export function parseSshAddress(text: string): SshAddress {
  const match =
    /^ssh:\/\/(?:([^@/:\s]+)@)?(\[[0-9a-fA-F:.]+\]|[^@/:\s[\]]+)(?::(\d{1,5}))?\/?$/.exec(text);
  const host = match?.[2]?.replace(/^\[|\]$/g, "");
  if (host === undefined) {
    const hint = /^ssh:\/\/[^@/]*:[^@/]*@/.test(text)
      ? "; a password does not belong in the address, use --password-file"
      : "";
    throw new Failure("input.invalid", {
      message: `--address is not of the form ssh://user@host:port${hint}`,
    });
  }
  const port = parseWholeNumber("the port of --address", match?.[3] ?? "22", {
    min: 1,
    max: 65_535,
  });
  return { user: match?.[1] ?? "root", host, port };
}

/** One of the listed words. */
export function parseChoice<Choice extends string>(
  option: string,
  text: string,
  choices: readonly Choice[],
): Choice {
  const choice = choices.find((candidate) => candidate === text);
  if (choice !== undefined) return choice;
  throw new Failure("input.invalid", {
    message: `${option} ${JSON.stringify(text)} is none of ${choices.join(", ")}`,
  });
}
