import { existsSync } from "node:fs";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import type { RandomBytes } from "@holdfast/shared/ports/random";
import { type ApiClient, createApiClient } from "../api-client.ts";
import type { CommandDefinition, CommandInput } from "../command.ts";
import type { Context } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { findStack, logFolder, type RunningStack, startStack, stopStack } from "../local-stack.ts";
import { parseWholeNumber } from "../parse-values.ts";
import { stateFolder } from "../profiles.ts";
import { readPassphrase, readSecretFile } from "../read-secret.ts";
import { printable } from "../render/format.ts";
import { note, printFields } from "../report.ts";
import { repositoryUrl } from "../repository-url.ts";

const libvirtSocket = "/var/run/libvirt/libvirt-sock";
const moverLogLines = 8;
const defaultRepositoryName = "default";
const stateOption = {
  flags: "--state <folder>",
  summary: "where its state lies (default: holdfast/ below XDG_DATA_HOME)",
};

const up: CommandDefinition = {
  path: "up",
  summary: "start Holdfast on this machine",
  description:
    "API, workflows and a mover in one process on loopback, with their state on disk. The first start creates a repository with a " +
    "generated passphrase and shows the recovery kit: print it. Runs until Ctrl-C, or in the background with --detach.",
  options: [
    stateOption,
    {
      flags: "--repository <url>",
      summary: "default repository: a directory or s3://bucket/prefix (first start only)",
    },
    {
      flags: "--passphrase-file <file>",
      summary: "use this passphrase instead of a generated one (first start only)",
    },
    { flags: "--port <port>", summary: "port of the API (default: any free one)" },
    { flags: "--detach", summary: "leave it running in the background; `holdfast down` stops it" },
  ],
  examples: [
    {
      command: "holdfast up",
      explanation: "Everything on this machine, the repository in the state folder.",
    },
    {
      command: "holdfast up --detach --repository s3://backups/lab",
      explanation: "In the background, with the repository in a bucket.",
    },
  ],
  run: async (context, input) => {
    const state = resolve(input.text("state") ?? stateFolder(context.environment));
    const running = await findStack(state);
    if (running !== undefined) {
      const repository = (await readDefault(state)) ?? { url: "", passphraseFile: "" };
      await saveProfile(context, state, running, repository);
      note(context, "It runs already.");
      showBlock(context, state, running, repository.url);
      return exitCodes.done.code;
    }
    await mkdir(state, { recursive: true, mode: 0o700 });
    await chmod(state, 0o700);
    const repository =
      (await readDefault(state)) ?? (await chooseRepository(context, input, state));
    const stop = new AbortController();
    using _interrupt = context.onInterrupt(() => stop.abort());
    const isDetached = input.flag("detach");
    const port = input.text("port");
    const startedMs = context.clock.now();
    const stack = await startStack({
      entryPath: context.localStackEntryPath,
      state,
      ...(port === undefined
        ? {}
        : { port: parseWholeNumber("--port", port, { min: 1, max: 65_535 }) }),
      environment: context.environment,
      clock: context.clock,
      signal: stop.signal,
      isDetached,
    });
    try {
      await registerRepository(context, stack, repository);
      await saveProfile(context, state, stack, repository);
    } catch (error) {
      await stopStack(state, stack, context.clock);
      throw error;
    }
    showBlock(context, state, stack, repository.url);
    const hasMover = await waitForMover(context, stack, { startedMs, signal: stop.signal });
    if (!hasMover) await complainOfMover(context, state);
    if (isDetached) return hasMover ? exitCodes.done.code : exitCodes.warnings.code;
    note(context, "\nRunning; Ctrl-C stops it. Jobs that run then are resumed by the next start.");
    const interrupted = new Promise<"interrupted">((tell) => {
      if (stop.signal.aborted) tell("interrupted");
      stop.signal.addEventListener("abort", () => tell("interrupted"), { once: true });
    });
    if ((await Promise.race([stack.ended, interrupted])) !== "interrupted") {
      throw new Failure("internal", {
        message: `the local stack ended by itself; its logs: ${logFolder(state)}`,
      });
    }
    note(context, "Stopping …");
    await stopStack(state, stack, context.clock);
    return exitCodes.done.code;
  },
};

const down: CommandDefinition = {
  path: "down",
  summary: "stop the Holdfast that `up --detach` left running",
  description:
    "State and recovery points stay. Jobs that run are resumed, or cleaned up, by the next start.",
  options: [stateOption],
  examples: [
    { command: "holdfast down", explanation: "`holdfast up` starts it again with the same state." },
  ],
  run: async (context, input) => {
    const state = resolve(input.text("state") ?? stateFolder(context.environment));
    const stack = await findStack(state);
    if (stack === undefined) {
      throw new Failure("not-found", {
        message: `no local stack of \`holdfast up\` runs on ${state}`,
      });
    }
    await stopStack(state, stack, context.clock);
    printFields(context, { stopped: true, state }, [["stopped", state]]);
    return exitCodes.done.code;
  },
};

export const localCommands: readonly CommandDefinition[] = [up, down];

type DefaultRepository = { readonly url: string; readonly passphraseFile: string };

/** What the first start chose; the choice stays. */
async function readDefault(state: string): Promise<DefaultRepository | undefined> {
  const text = await readFile(join(state, "default-repository"), "utf8").catch(() => undefined);
  return text === undefined
    ? undefined
    : { url: text.trim(), passphraseFile: join(state, "passphrase") };
}

async function chooseRepository(
  context: Context,
  input: CommandInput,
  state: string,
): Promise<DefaultRepository> {
  const url = repositoryUrl(input.text("repository") ?? join(state, "repository"));
  const file = input.text("passphraseFile");
  const isGiven = file !== undefined || Boolean(context.environment["HOLDFAST_PASSPHRASE"]);
  const passphraseFile = join(state, "passphrase");
  // An interrupted first start has written it already: a second one must not make another.
  const earlier = existsSync(passphraseFile)
    ? await readSecretFile("passphrase", passphraseFile)
    : undefined;
  const passphrase = isGiven
    ? await readPassphrase(context, { file })
    : (earlier ?? newPassphrase(context.random));
  if (!isGiven) {
    // Kept before it is used: a repository whose passphrase nobody has would be lost.
    await writeFile(passphraseFile, `${passphrase}\n`, { mode: 0o600 });
    showRecoveryKit(context, url, passphrase, passphraseFile);
  }
  try {
    await context.mover.run({ kind: "repository-init", url, passphrase }, {});
  } catch (error) {
    if (!isFailure(error, "repository.exists")) throw error;
    // One that exists is used, if this passphrase opens it.
    await context.mover.run({ kind: "image-points", url, passphrase }, {});
  }
  // A given one is kept only once it has opened the repository.
  await writeFile(passphraseFile, `${passphrase}\n`, { mode: 0o600 });
  await writeFile(join(state, "default-repository"), `${url}\n`, { mode: 0o600 });
  return { url, passphraseFile };
}

/** 30 characters of 5 bits each, without letters that look like digits. */
export function newPassphrase(random: RandomBytes): string {
  const alphabet = "0123456789abcdefghjkmnpqrstvwxyz";
  const characters = Array.from(random(30), (byte) => alphabet.charAt(byte & 31)).join("");
  return characters.match(/.{5}/g)?.join("-") ?? characters;
}

function showRecoveryKit(
  context: Context,
  url: string,
  passphrase: string,
  passphraseFile: string,
): void {
  // Also with --quiet and --json: it is the one thing that must not be missed, and stdout stays a document.
  context.stderr.write(`
---- Recovery kit: print this and keep it away from this machine ----
  Repository   ${url}
  Passphrase   ${passphrase}
  To restore   holdfast image points --repository ${url}
               holdfast image restore POINT --repository ${url} -o FILE
  Without the passphrase nothing can be restored, by nobody.
---------------------------------------------------------------------
  (It also lies in ${passphraseFile}, for this user only.)

`);
}

async function openApi(context: Context, stack: RunningStack): Promise<ApiClient> {
  const token = (await readSecretFile("token file", stack.tokenFile)).trim();
  return createApiClient({ endpoint: stack.api, token, clock: context.clock });
}

async function registerRepository(
  context: Context,
  stack: RunningStack,
  { url, passphraseFile }: DefaultRepository,
): Promise<void> {
  const api = await openApi(context, stack);
  const { items } = await api.call("listRepositories");
  if (items.some(({ repositoryId }) => repositoryId === defaultRepositoryName)) return;
  await api.call("addRepository", {
    body: {
      repositoryId: defaultRepositoryName,
      url,
      passphrase: await readSecretFile("passphrase", passphraseFile),
    },
  });
}

const moverMsMax = 20_000;
const moverPollMs = 200;

/** A mover shows itself in the catalog within a second or two of its start; one that cannot start never does. */
async function waitForMover(
  context: Context,
  stack: RunningStack,
  { startedMs, signal }: { readonly startedMs: number; readonly signal: AbortSignal },
): Promise<boolean> {
  const api = await openApi(context, stack);
  const deadline = context.clock.now() + moverMsMax;
  while (!signal.aborted) {
    const { movers } = await api.call("getStatus");
    // One of an earlier, killed stack may still count as there.
    if (movers.some(({ startedAt }) => Date.parse(startedAt) >= startedMs)) return true;
    if (context.clock.now() > deadline) return false;
    await context.clock.sleep(moverPollMs, signal).catch(() => undefined);
  }
  return true;
}

/** On stderr in every mode: without a mover no job gets anywhere. */
async function complainOfMover(context: Context, state: string): Promise<void> {
  const log = join(logFolder(state), "mover.log");
  const text = await readFile(log, "utf8").catch(() => "");
  const lines = text.trimEnd().split("\n").slice(-moverLogLines).map(printable);
  context.stderr.write(
    `\nHF-MOVER-LOST: the mover did not start within ${moverMsMax / 1000} seconds; it is tried again, and jobs wait until it is there.\n  Its log, ${log}, ends:\n${lines.map((line) => `    ${line}\n`).join("")}`,
  );
}

async function saveProfile(
  context: Context,
  state: string,
  { api, tokenFile }: RunningStack,
  { passphraseFile }: DefaultRepository,
): Promise<void> {
  await context.profiles.put(context.profileName, {
    endpoint: api,
    tokenFile,
    passphraseFile,
    state,
  });
}

function showBlock(context: Context, state: string, stack: RunningStack, url: string): void {
  const { api, tokenFile, pid } = stack;
  const hasLibvirt = existsSync(libvirtSocket);
  printFields(
    context,
    {
      api,
      tokenFile,
      repository: url,
      state,
      pid,
      profile: context.profileName,
      libvirt: hasLibvirt,
    },
    [
      ["API", api],
      ["token file", tokenFile],
      ["repository", url],
      ["state", state],
      ["logs", logFolder(state)],
      ["profile", `${context.profileName} in ${context.profiles.path}`],
    ],
  );
  const example = "--identity-file ~/.ssh/id_ed25519";
  note(
    context,
    hasLibvirt
      ? `\nlibvirt runs on this host. Add it, then see its VMs:\n  holdfast provider add libvirt this-host --address ssh://root@127.0.0.1 ${example}\n  holdfast sync && holdfast vm list`
      : `\nNext: holdfast provider add libvirt NAME --address ssh://root@HOST ${example}`,
  );
}
