import type { KeysResult } from "@holdfast/shared/contracts/repository-keys";
import { newRecoveryKey } from "@holdfast/shared/repository/keys/recovery-key";
import type { RepositoryKeys } from "@holdfast/shared/repository/repository";
import { keyService } from "../key-service.ts";
import { openKeysAt } from "../open-repository-at.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** Lists and changes the keys of a repository. Only the answer to `add-recovery-key` holds a secret. */
export async function manageKeys(
  context: StandaloneContext,
  { url, passphrase, action }: Request<"repository-keys">,
): Promise<KeysResult> {
  const { clock, random, logger } = context;
  const keys = await openKeysAt(url, { passphrase, clock, random, logger });
  switch (action.do) {
    case "list":
      return describe(await keys.list());
    case "add-passphrase": {
      const method = { kind: "passphrase", passphrase: action.newPassphrase } as const;
      return await add(keys, { label: action.label, method });
    }
    case "add-kms": {
      const method = { kind: "aws-kms", keyArn: action.keyArn, kms: keyService } as const;
      return await add(keys, { label: action.label, method });
    }
    case "add-recovery-key": {
      const { words } = newRecoveryKey(random);
      const method = { kind: "recovery-key", words } as const;
      return { ...(await add(keys, { label: action.label, method })), words };
    }
    case "remove":
      return describe(await keys.remove(action.id));
    case "rotate":
      return describe(await keys.rotate(action.only));
    case "check": {
      const { report, opened } = await keys.check(action.others);
      return { ...describe(report), opened: opened.map(({ wrappings }) => [...wrappings]) };
    }
    default:
      return action satisfies never;
  }
}

async function add(
  keys: RepositoryKeys,
  wanted: Parameters<RepositoryKeys["add"]>[0],
): Promise<KeysResult> {
  const { id } = await keys.add(wanted);
  return { ...describe(await keys.list()), added: id };
}

function describe(report: Awaited<ReturnType<RepositoryKeys["list"]>>): KeysResult {
  const { activeEpoch } = report;
  return {
    ...(activeEpoch === undefined ? {} : { activeEpoch }),
    epochs: [...report.epochs],
    keys: report.wrappings.map((one) => ({ ...one, epochs: [...one.epochs] })),
    findings: report.findings.map((one) => ({ ...one })),
    warnings: [...report.warnings],
  };
}
