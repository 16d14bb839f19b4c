import type { FailureCode } from "@holdfast/shared/domain/failure";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { openNbdReader } from "./nbd-reader.ts";
import {
  hello,
  openScripted,
  optionReply,
  type Script,
  startScriptedServer,
} from "./scripted-server.ts";
import { optionReplies, optionTypes } from "./wire.ts";

const allocation = { by: "allocation" } as const;

describe("the handshake", () => {
  const openWith = (script: Script, timeoutMs = 5000) => openScripted(script, timeoutMs);
  const refuse = (type: number): Script => ({
    onOption: (option, _data, socket) => {
      if (option !== optionTypes.go) return false;
      socket.write(optionReply(option, type, Buffer.from("because")));
      return true;
    },
  });
  const cases: readonly {
    readonly name: string;
    readonly code: FailureCode;
    readonly script: Script;
  }[] = [
    { name: "silence", code: "network.timeout", script: { hello: Buffer.alloc(0) } },
    { name: "half a hello", code: "network.timeout", script: { hello: hello().subarray(0, 9) } },
    {
      name: "another protocol",
      code: "protocol.invalid",
      script: { hello: Buffer.from("SSH-2.0-OpenSSH_9.2\r\n") },
    },
    {
      name: "an unknown style",
      code: "protocol.invalid",
      script: { hello: Buffer.from("NBDMAGICxxxxxxxx\0\0") },
    },
    {
      name: "the old style",
      code: "unsupported",
      script: {
        hello: Buffer.concat([
          hello().subarray(0, 8),
          Buffer.from("0000420281861253", "hex"),
          Buffer.alloc(136),
        ]),
      },
    },
    { name: "no fixed newstyle", code: "unsupported", script: { hello: hello(0) } },
    { name: "an unknown export", code: "not-found", script: refuse(optionReplies.unknownExport) },
    { name: "TLS required", code: "auth.denied", script: refuse(optionReplies.tlsRequired) },
    { name: "a policy", code: "auth.denied", script: refuse(optionReplies.policy) },
    { name: "a shutdown", code: "network.unreachable", script: refuse(optionReplies.shutdown) },
    { name: "no GO", code: "unsupported", script: refuse(optionReplies.unsupported) },
    { name: "an invalid option", code: "protocol.invalid", script: refuse(optionReplies.invalid) },
    { name: "GO without a size", code: "protocol.invalid", script: refuse(optionReplies.ack) },
    { name: "a missing context", code: "changes.unknown", script: { contexts: {} } },
    {
      name: "no structured replies",
      code: "changes.unknown",
      script: { hasStructuredReplies: false },
    },
    {
      name: "block sizes of 0",
      code: "protocol.invalid",
      script: { blockSizes: { min: 0, max: 0 } },
    },
    {
      name: "block sizes that are no powers of two",
      code: "protocol.invalid",
      script: { blockSizes: { min: 3, max: 65_536 } },
    },
    {
      name: "a payload smaller than a block",
      code: "protocol.invalid",
      script: { blockSizes: { min: 4096, max: 512 } },
    },
    {
      name: "an answer to another option",
      code: "protocol.invalid",
      script: {
        onOption: (_option, _data, socket) =>
          socket.write(optionReply(99, optionReplies.ack)) || true,
      },
    },
    {
      name: "endless replies",
      code: "protocol.invalid",
      script: {
        onOption: (option, _data, socket) => {
          for (let count = 0; count < 1000; count++)
            socket.write(optionReply(option, optionReplies.info, Buffer.alloc(100)));
          return true;
        },
      },
    },
    {
      name: "a huge option reply",
      code: "protocol.invalid",
      script: {
        onOption: (option, _data, socket) => {
          const reply = optionReply(option, optionReplies.info);
          reply.writeUInt32BE(0xfffffff0, 16);
          socket.write(reply);
          return true;
        },
      },
    },
    {
      name: "a flood",
      code: "protocol.invalid",
      script: {
        onOption: (_option, _data, socket) => socket.write(Buffer.alloc(1_000_000)) || true,
      },
    },
    {
      name: "the end",
      code: "network.unreachable",
      script: { onOption: (_option, _data, socket) => socket.destroy() !== undefined },
    },
  ];
  test.each(cases)("with $name fails with $code", async ({ name, code, script }) => {
    const timeoutMs = code === "network.timeout" ? 200 : 5000;
    await expect(openWith(script, timeoutMs), name).rejects.toMatchObject({ code });
  });

  test("a size above 2^53 is refused", async () => {
    await expect(openWith({ sizeBytes: 2 ** 60 })).rejects.toMatchObject({
      code: "protocol.invalid",
    });
  });

  test("a server that refuses TLS is not spoken to without", async () => {
    const seen: number[] = [];
    await using server = await startScriptedServer({
      onOption: (option, _data, socket) => {
        seen.push(option);
        socket.write(optionReply(option, optionReplies.unsupported, Buffer.from("no TLS here")));
        return true;
      },
    });
    const opening = openNbdReader(
      { ...server.address, tls: {} },
      { exportName: "secret", extents: allocation },
    );
    await expect(opening).rejects.toMatchObject({ code: "auth.denied" });
    expect(seen).toEqual([optionTypes.startTls]);
  });

  test("plain bytes slipped in before TLS are refused", async () => {
    await using server = await startScriptedServer({
      onOption: (option, _data, socket) => {
        const ack = optionReply(option, optionReplies.ack);
        socket.write(
          Buffer.concat([ack, optionReply(optionTypes.structuredReply, optionReplies.ack)]),
        );
        return true;
      },
    });
    const opening = openNbdReader(
      { ...server.address, tls: {} },
      { exportName: "", extents: allocation },
    );
    await expect(opening).rejects.toMatchObject({ code: "protocol.invalid" });
  });

  test("nobody there is unreachable", async () => {
    const server = await startScriptedServer({});
    await server[Symbol.asyncDispose]();
    const opening = openNbdReader(server.address, { exportName: "", extents: allocation });
    await expect(opening).rejects.toMatchObject({ code: "network.unreachable" });
  });

  test("with anything at all ends in a Failure or a sensible export, within its time", async () => {
    const reply = fc.record({
      option: fc.constantFrom(0, optionTypes.go, optionTypes.structuredReply),
      type: fc.constantFrom(1, 2, 3, 4, 0x80000001, 0x80000006, 0xffffffff),
      data: fc.uint8Array({ maxLength: 40 }),
      announced: fc.option(fc.integer({ min: 0, max: 0xffffffff }), { nil: undefined, freq: 8 }),
    });
    const property = fc.asyncProperty(fc.array(reply, { maxLength: 6 }), async (replies) => {
      let isDone = false;
      const opening = openScripted(
        {
          onOption: (option, _data, socket) => {
            if (isDone) return false;
            for (const { option: other, type, data, announced } of replies) {
              const bytes = optionReply(other === 0 ? option : other, type, Buffer.from(data));
              if (announced !== undefined) bytes.writeUInt32BE(announced, 16);
              socket.write(bytes);
            }
            isDone = true;
            socket.end(optionReply(option, optionReplies.ack));
            return true;
          },
        },
        3000,
      );
      const outcome = await opening.then(
        async (opened) => {
          await opened[Symbol.asyncDispose]();
          return opened.reader.sizeBytes;
        },
        (error: unknown) => error,
      );
      if (typeof outcome === "number") expect(Number.isSafeInteger(outcome)).toBe(true);
      else expect(outcome).toMatchObject({ name: "Failure" });
    });
    await fc.assert(property, { numRuns: 200 });
  });
});
