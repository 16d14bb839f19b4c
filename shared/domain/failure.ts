/**
 * One class for everything that can go wrong outside our own code, one table of codes.
 * Branch on the code, never on the message. `exitCode` follows the CLI's contract:
 * 1 failed, 2 usage, 4 forbidden, 5 not found, 6 busy or conflict, 7 temporary, 8 data failed verification, 130 cancelled.
 */
const failures = {
  "input.invalid": {
    retryable: false,
    exitCode: 2,
    advice: "Correct the value that the message names and try again.",
  },
  "auth.denied": {
    retryable: false,
    exitCode: 4,
    advice: "Check the token or credential and the role it carries.",
  },
  "not-found": {
    retryable: false,
    exitCode: 5,
    advice: "Check the name; list what exists with the matching `list` command.",
  },
  conflict: {
    retryable: false,
    exitCode: 6,
    advice: "Someone changed it meanwhile: read it again, then repeat.",
  },
  busy: {
    retryable: true,
    exitCode: 6,
    advice: "Another job holds it. Wait for that job or cancel it; see `holdfast jobs`.",
  },
  cancelled: {
    retryable: false,
    exitCode: 130,
    advice: "The job was cancelled; what it had made was removed.",
  },
  "fence.lost": {
    retryable: false,
    exitCode: 6,
    advice: "Another attempt took this work over; nothing needs doing.",
  },
  "limit.zero": {
    retryable: false,
    exitCode: 6,
    advice:
      "A limit of 0 lets nothing pass. Raise it or set it to `off`: `holdfast repository limit`, `holdfast provider limit`, or the limits of the mover or command.",
  },
  "network.unreachable": {
    retryable: true,
    exitCode: 7,
    advice: "Check address, port, firewall and that the service runs.",
  },
  "network.timeout": {
    retryable: true,
    exitCode: 7,
    advice: "The other side did not answer in time. Check its load and the network.",
  },
  "host.key-unknown": {
    retryable: false,
    exitCode: 4,
    advice:
      "Compare the fingerprint with the host's own (ssh-keygen -lf), then pin it with `holdfast provider add libvirt --host-key`.",
  },
  "host.key-changed": {
    retryable: false,
    exitCode: 4,
    advice:
      "The host presents another key than the pinned one. Find out why before you pin the new one.",
  },
  "host.login-refused": {
    retryable: false,
    exitCode: 4,
    advice: "Check user, key or password of the provider's credential.",
  },
  "host.command-failed": {
    retryable: false,
    exitCode: 1,
    advice: "The message has what the host's command said; correct that on the host.",
  },
  "host.output-invalid": {
    retryable: false,
    exitCode: 1,
    advice:
      "The host answered in a form that is not understood. Compare its versions with docs/providers.",
  },
  "host.no-space": {
    retryable: false,
    exitCode: 1,
    advice:
      "Free space on the hypervisor's storage, or move the scratch folder with the provider's options.",
  },
  "host.package-missing": {
    retryable: false,
    exitCode: 1,
    advice: "Install the package that the message names on that host.",
  },
  "vm.gone": {
    retryable: false,
    exitCode: 5,
    advice: "Run `holdfast sync`; the VM was removed or renamed on its host.",
  },
  "vm.unsupported": {
    retryable: false,
    exitCode: 1,
    advice: "Exclude the disk, or choose another strategy for this VM.",
  },
  "vm.snapshot-failed": {
    retryable: false,
    exitCode: 1,
    advice: "The message has the hypervisor's reason.",
  },
  "quiesce.failed": {
    retryable: false,
    exitCode: 1,
    advice: "Check the guest agent, or allow crash-consistent backups in the policy.",
  },
  "changes.unknown": {
    retryable: false,
    exitCode: 1,
    advice: "A full read of the disk follows by itself.",
  },
  "target.refused": {
    retryable: false,
    exitCode: 6,
    advice: "Choose another name or place for the restore, or pass the overwrite option.",
  },
  "disk.read-failed": {
    retryable: true,
    exitCode: 7,
    advice: "Check the hypervisor's storage for I/O errors.",
  },
  "disk.write-failed": {
    retryable: true,
    exitCode: 7,
    advice: "Check the target's storage: space, quota, I/O errors.",
  },
  "protocol.invalid": {
    retryable: true,
    exitCode: 7,
    advice: "The other side broke the protocol. Check its version.",
  },
  "storage.unreachable": {
    retryable: true,
    exitCode: 7,
    advice: "Check the endpoint, DNS, TLS and credentials of the object store.",
  },
  "storage.refused": {
    retryable: false,
    exitCode: 4,
    advice:
      "The storage denied the request. Check the credential's rights on bucket and prefix; for a folder its mount, owner and mode.",
  },
  "storage.no-space": {
    retryable: false,
    exitCode: 1,
    advice: "Free space or raise the quota of the repository's storage.",
  },
  "storage.locked": {
    retryable: false,
    exitCode: 6,
    advice:
      "Object Lock keeps these objects until the date that the message names; remove them after it. A legal hold ends with `holdfast image hold POINT off`.",
  },
  "clock.wrong": {
    retryable: false,
    exitCode: 1,
    advice: "Set this machine's clock (NTP), or the store's, and try again.",
  },
  "index.stale": {
    retryable: true,
    exitCode: 7,
    advice: "The disk is read again without the index that named packs which are gone.",
  },
  "session.ended": {
    retryable: false,
    exitCode: 6,
    advice:
      "The work was silent for so long that it was taken for dead, or it was ended by another attempt. Start it again: what it has stored is found and used while it is there.",
  },
  "object.not-found": {
    retryable: false,
    exitCode: 5,
    advice:
      "An object of the repository is missing. `holdfast repository verify URL` names what is affected.",
  },
  "object.exists": {
    retryable: false,
    exitCode: 6,
    advice: "Something already has this name; objects are never overwritten.",
  },
  "object.corrupt": {
    retryable: false,
    exitCode: 8,
    advice:
      "Stored bytes are damaged. `holdfast repository verify URL` names what is affected, `holdfast repository repair URL` looks for other copies; keep everything.",
  },
  "repository.not-found": {
    retryable: false,
    exitCode: 5,
    advice: "Check the URL, or create it with `holdfast repository init URL`.",
  },
  "repository.exists": {
    retryable: false,
    exitCode: 6,
    advice: "There is a repository already; use it or choose another prefix.",
  },
  "repository.format-unknown": {
    retryable: false,
    exitCode: 1,
    advice: "It was written by a newer release. Upgrade Holdfast; nothing was changed.",
  },
  "repository.key-wrong": {
    retryable: false,
    exitCode: 4,
    advice:
      "The passphrase opens none of the repository's key wrappings. Check HOLDFAST_PASSPHRASE.",
  },
  "repository.epoch-unknown": {
    retryable: true,
    exitCode: 4,
    advice:
      "If the keys were rotated while this ran, run it again. If it stays: this key was left out of that epoch, or the epoch's object is gone; `holdfast repository keys list URL` says more. Open with another key.",
  },
  "repository.keys-unclear": {
    retryable: false,
    exitCode: 6,
    advice:
      "Nothing new is sealed until it is clear under which key epoch; restores go on. `holdfast repository keys list URL` names the cause; see docs/security.md, Keys.",
  },
  "key-service.refused": {
    retryable: false,
    exitCode: 4,
    advice:
      "Check the KMS key: its state, its policy and a pending deletion. Open the repository with another key meanwhile.",
  },
  "collect.brake": {
    retryable: false,
    exitCode: 6,
    advice:
      "Look at `holdfast repository gc URL --dry-run`. If all of that is to go, repeat with the option that the message names.",
  },
  "collect.damaged": {
    retryable: false,
    exitCode: 8,
    advice:
      "Run `holdfast repository verify URL`, then repair or forget the points that it names; a damaged root can be forgotten by the object's name.",
  },
  "verification.failed": {
    retryable: false,
    exitCode: 8,
    advice:
      "Restored or stored data differs from what was backed up. Keep everything and run `holdfast repository verify URL`.",
  },
  "seal.mismatch": {
    retryable: false,
    exitCode: 8,
    advice:
      "A sealed pack did not open to what went in: suspect this machine's memory. Run the mover elsewhere.",
  },
  "mover.lost": {
    retryable: true,
    exitCode: 7,
    advice:
      "Check that a mover of this site runs and reaches the control plane, then start the job again.",
  },
  "aws.failed": {
    retryable: true,
    exitCode: 7,
    advice: "The control plane's AWS call failed; see the cause.",
  },
  unsupported: {
    retryable: false,
    exitCode: 1,
    advice: "This combination is not supported; the message names what is.",
  },
  internal: {
    retryable: false,
    exitCode: 1,
    advice: "This is a defect of Holdfast. Please report it with the job's log.",
  },
} as const satisfies Record<string, FailureKind>;

export type FailureKind = {
  readonly retryable: boolean;
  readonly exitCode: number;
  readonly advice: string;
};

export type FailureCode = keyof typeof failures;

/** JSON values only; never secrets, never guest data. */
export type FailureDetails = {
  readonly message: string;
  readonly cause?: unknown;
  readonly [detail: string]: unknown;
};

export class Failure extends Error {
  readonly code: FailureCode;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: FailureCode, { message, cause, ...details }: FailureDetails) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "Failure";
    this.code = code;
    this.details = details;
  }

  get kind(): FailureKind {
    return failures[this.code];
  }
}

export function isFailure(error: unknown, code?: FailureCode): error is Failure {
  return error instanceof Failure && (code === undefined || error.code === code);
}

export function failureKind(code: FailureCode): FailureKind {
  return failures[code];
}

export function isFailureCode(text: string): text is FailureCode {
  return Object.hasOwn(failures, text);
}

export const failureCodes: readonly FailureCode[] = Object.keys(failures) as FailureCode[];

/** `storage.no-space` is shown to people as `HF-STORAGE-NO-SPACE`. */
export function failureId(code: FailureCode): string {
  return `HF-${code.replaceAll(".", "-").toUpperCase()}`;
}

/** What crosses a process as JSON: the code, the message and advice; causes as text, innermost last. */
export type FailureRecord = {
  readonly code: FailureCode;
  readonly message: string;
  readonly causes: readonly string[];
};

export function toFailureRecord(error: unknown): FailureRecord {
  const causes: string[] = [];
  let cause = error instanceof Error ? error.cause : undefined;
  while (cause instanceof Error && causes.length < 8) {
    causes.push(cause.message.slice(0, 1000));
    cause = cause.cause;
  }
  if (error instanceof Failure) {
    return { code: error.code, message: error.message.slice(0, 4000), causes };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: "internal", message: message.slice(0, 4000), causes };
}

/** Turns any error into a Failure; a Failure stays itself, everything else becomes `code` with the error as its cause. */
export function asFailure(error: unknown, code: FailureCode, message: string): Failure {
  if (error instanceof Failure) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new Failure(code, { message: `${message}: ${text}`, cause: error });
}
