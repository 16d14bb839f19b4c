/** Log events, not prose: a short lower-case event name and JSON fields. Never secrets, never guest data. */
export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(event: string, fields?: LogFields): void;
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields): void;
  with(fields: LogFields): Logger;
}

/** One JSON object a line. */
export function createJsonLogger(
  write: (line: string) => void,
  now: () => number = Date.now,
  fields: LogFields = {},
): Logger {
  const log = (level: string) => (event: string, more?: LogFields) =>
    write(
      JSON.stringify({ time: new Date(now()).toISOString(), level, event, ...fields, ...more }),
    );
  return {
    debug: log("debug"),
    info: log("info"),
    warn: log("warn"),
    error: log("error"),
    with: (more) => createJsonLogger(write, now, { ...fields, ...more }),
  };
}

const ignore = (): void => undefined;
export const silentLogger: Logger = {
  debug: ignore,
  info: ignore,
  warn: ignore,
  error: ignore,
  with: () => silentLogger,
};
