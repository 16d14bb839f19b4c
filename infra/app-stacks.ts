import type { App, Environment } from "aws-cdk-lib";
import { Tags, Validations } from "aws-cdk-lib";
import { AwsSolutionsChecks } from "cdk-nag";
import type { Installation } from "./installation.ts";
import { BackendStack, type BackendStackProps } from "./stacks/backend-stack.ts";
import { StorageStack } from "./stacks/storage-stack.ts";

/** The stacks of one installation in an app, checked by cdk-nag at synthesis. */
export function addStacks(
  app: App,
  options: Pick<BackendStackProps, "bundle" | "definitionOf"> & {
    readonly installation: Installation;
  },
): { readonly storage: StorageStack; readonly backend: BackendStack } {
  const { installation } = options;
  const { name, account, region } = installation;
  const env: Environment = {
    ...(account === undefined ? {} : { account }),
    ...(region === undefined ? {} : { region }),
  };
  const storage = new StorageStack(app, `${name}-storage`, {
    env,
    description: "Holdfast: what holds data",
  });
  const backend = new BackendStack(app, `${name}-backend`, {
    env,
    description: "Holdfast: control plane and movers",
    storage,
    ...options,
  });
  Tags.of(app).add("holdfast:installation", name);
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  return { storage, backend };
}
