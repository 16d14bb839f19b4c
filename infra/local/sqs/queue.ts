import { createHash, randomBytes, randomUUID } from "node:crypto";
import { type AppendLog, openAppendLog } from "../durable/append-log.ts";
import { replaceFile } from "../durable/json-file.ts";
import type { JsonObject } from "../json.ts";

export type StoredMessage = {
  readonly id: string;
  readonly body: string;
  readonly attributes: JsonObject;
  readonly sentAt: number;
  /** Times are milliseconds since 1970. Not handed out before. */
  visibleAt: number;
  receiveCount: number;
  firstReceivedAt: number | undefined;
  /** Only the handle of the last receipt is good. */
  receiptHandle: string | undefined;
};

type LogRecord =
  | { readonly op: "send"; readonly message: StoredMessage }
  | {
      readonly op: "receive";
      readonly id: string;
      readonly visibleAt: number;
      readonly receiptHandle: string;
      readonly at: number;
    }
  | { readonly op: "visibility"; readonly id: string; readonly visibleAt: number }
  | { readonly op: "delete"; readonly id: string };

/** Records beyond which the log is rewritten, when most of them are history. */
const compactAfterRecords = 5000;

/**
 * One queue's messages, in memory and in an append-only log. Every change is in the log, and on the disk, before
 * the caller hears of it: a message sent is never lost, and a receive count survives a crash.
 */
export type Queue = {
  send(body: string, attributes: JsonObject, delayMs: number): Promise<StoredMessage>;
  /** Takes over a message of another queue: the same id, attributes and count. */
  adopt(message: StoredMessage): Promise<void>;
  /** Visible messages in the order in which they were sent. */
  visible(): StoredMessage[];
  has(id: string): boolean;
  receive(message: StoredMessage, visibilityMs: number): Promise<string>;
  find(receiptHandle: string): StoredMessage | undefined;
  setVisibility(message: StoredMessage, visibilityMs: number): Promise<void>;
  delete(id: string): Promise<void>;
  /** Earliest time at which a hidden message appears. */
  nextVisibleAt(): number | undefined;
  counts(): { visible: number; hidden: number; delayed: number };
  ids(): readonly string[];
  close(): void;
};

export function openQueue(path: string, now: () => number): Queue {
  const messages = new Map<string, StoredMessage>();
  const opened = openAppendLog(path);
  for (const record of opened.records) replay(messages, record as unknown as LogRecord);
  let log: AppendLog = opened.log;
  let records = opened.records.length;

  async function write(record: LogRecord): Promise<void> {
    replay(messages, structuredClone(record));
    log.append(record as unknown as JsonObject);
    records += 1;
    if (records > compactAfterRecords && records > messages.size * 4) compact();
    await log.flush();
  }

  /** What is in the new file is on the disk, so flushes that wait on the old one may end with its closing. */
  function compact(): void {
    const sends = [...messages.values()].map((message) => ({ op: "send", message }));
    replaceFile(path, sends.map((record) => `${JSON.stringify(record)}\n`).join(""));
    log.close();
    log = openAppendLog(path).log;
    records = messages.size;
  }

  return {
    send: async (body, attributes, delayMs) => {
      const message: StoredMessage = {
        id: randomUUID(),
        body,
        attributes,
        sentAt: now(),
        visibleAt: now() + delayMs,
        receiveCount: 0,
        firstReceivedAt: undefined,
        receiptHandle: undefined,
      };
      await write({ op: "send", message });
      return message;
    },
    adopt: (message) =>
      write({ op: "send", message: { ...message, visibleAt: now(), receiptHandle: undefined } }),
    visible: () => [...messages.values()].filter((message) => message.visibleAt <= now()),
    has: (id) => messages.has(id),
    receive: async (message, visibilityMs) => {
      const receiptHandle = randomBytes(48).toString("base64url");
      const at = now();
      const visibleAt = at + visibilityMs;
      await write({ op: "receive", id: message.id, visibleAt, receiptHandle, at });
      return receiptHandle;
    },
    find: (receiptHandle) =>
      [...messages.values()].find((message) => message.receiptHandle === receiptHandle),
    setVisibility: (message, visibilityMs) =>
      write({ op: "visibility", id: message.id, visibleAt: now() + visibilityMs }),
    delete: (id) => write({ op: "delete", id }),
    nextVisibleAt: () => {
      const times = [...messages.values()].map(({ visibleAt }) => visibleAt);
      const later = times.filter((time) => time > now());
      return later.length === 0 ? undefined : Math.min(...later);
    },
    counts: () => {
      const counts = { visible: 0, hidden: 0, delayed: 0 };
      for (const { visibleAt, receiveCount } of messages.values()) {
        if (visibleAt <= now()) counts.visible += 1;
        else if (receiveCount === 0) counts.delayed += 1;
        else counts.hidden += 1;
      }
      return counts;
    },
    ids: () => [...messages.keys()],
    close: () => log.close(),
  };
}

function replay(messages: Map<string, StoredMessage>, record: LogRecord): void {
  if (record.op === "send") {
    messages.set(record.message.id, record.message);
    return;
  }
  const message = messages.get(record.id);
  if (message === undefined) return;
  switch (record.op) {
    case "receive":
      message.visibleAt = record.visibleAt;
      message.receiptHandle = record.receiptHandle;
      message.receiveCount += 1;
      message.firstReceivedAt ??= record.at;
      return;
    case "visibility":
      message.visibleAt = record.visibleAt;
      return;
    case "delete":
      messages.delete(record.id);
      return;
    default:
      record satisfies never;
  }
}

export const md5 = (text: string | Buffer): string => createHash("md5").update(text).digest("hex");

/** The digest over message attributes that SDKs check: name, type and value, each with its length, sorted by name. */
export function md5OfAttributes(attributes: JsonObject): string | undefined {
  const names = Object.keys(attributes).sort();
  if (names.length === 0) return undefined;
  const hash = createHash("md5");
  const add = (bytes: Buffer) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    hash.update(length).update(bytes);
  };
  for (const name of names) {
    const { DataType, StringValue, BinaryValue } = attributes[name] as Record<string, string>;
    add(Buffer.from(name));
    add(Buffer.from(DataType ?? "String"));
    if (BinaryValue === undefined) {
      hash.update(Buffer.of(1));
      add(Buffer.from(StringValue ?? ""));
    } else {
      hash.update(Buffer.of(2));
      add(Buffer.from(BinaryValue, "base64"));
    }
  }
  return hash.digest("hex");
}
