/** Numbers and times as people read them. Sizes in binary units; a dash stands for what is not known. */

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;

export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  // 1023.97 KiB would be shown as 1024 KiB: the next unit reads better.
  if (value >= 1023.5 && unit > 0 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

export function formatRate(bytesPerSecond: number | undefined): string {
  return bytesPerSecond === undefined ? "-" : `${formatBytes(bytesPerSecond)}/s`;
}

/** `42 s`, `3 m 07 s`, `2 h 05 m`, `4 d 03 h`. */
export function formatDuration(seconds: number | undefined): string {
  if (seconds === undefined || !Number.isFinite(seconds)) return "-";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const two = (value: number): string => String(value).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${two(whole % 60)} s`;
  if (whole < 86_400)
    return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} m`;
  return `${Math.floor(whole / 86_400)} d ${two(Math.floor((whole % 86_400) / 3600))} h`;
}

/** `3 m 07 s ago`; what lies ahead by another machine's clock is shown as `now`. */
export function formatAge(time: string | undefined, nowMs: number): string {
  if (time === undefined) return "never";
  const seconds = (nowMs - Date.parse(time)) / 1000;
  if (!Number.isFinite(seconds)) return "-";
  if (seconds < 1) return "now";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s ago`;
  if (whole < 3600) return `${Math.floor(whole / 60)} m ago`;
  if (whole < 172_800) return `${Math.floor(whole / 3600)} h ago`;
  return `${Math.floor(whole / 86_400)} d ago`;
}

/** `2026-11-20 15:34:47` in UTC. */
export function formatTime(time: string | undefined): string {
  if (time === undefined) return "-";
  const parsed = new Date(time);
  return Number.isNaN(parsed.getTime())
    ? "-"
    : `${parsed.toISOString().slice(0, 19).replace("T", " ")}Z`;
}

/** How many times smaller: `12.5x`; a dash when nothing was stored. */
export function formatRatio(before: number, after: number): string {
  if (before === 0) return "-";
  if (after === 0) return "all";
  const ratio = before / after;
  return `${ratio >= 100 ? Math.round(ratio) : ratio.toFixed(1)}x`;
}

/** Names come from hypervisors: nothing in them may steer the terminal or break a line of a table. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is removed here.
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, "�");
}
