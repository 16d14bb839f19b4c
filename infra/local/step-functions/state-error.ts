/** A failure inside an execution: what Retry and Catch match. */
export class StateError extends Error {
  readonly error: string;
  readonly cause_: string;

  constructor(error: string, cause: string) {
    super(`${error}: ${cause}`);
    this.name = "StateError";
    this.error = error;
    this.cause_ = cause;
  }
}

/** Not caught by States.ALL: the execution cannot go on. */
export const isTerminal = ({ error }: StateError): boolean =>
  error === "States.Runtime" || error === "States.DataLimitExceeded";

/** This process stops or this branch was stopped; nothing is recorded and nothing is caught. */
export class Suspended extends Error {
  constructor() {
    super("suspended");
    this.name = "Suspended";
  }
}
