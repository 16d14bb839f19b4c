import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { FunctionSettings, MoverSettings } from "@holdfast/shared/contracts/settings";
import { App } from "aws-cdk-lib";
import { Match, Template } from "aws-cdk-lib/assertions";
import { Code } from "aws-cdk-lib/aws-lambda";
import { Bucket } from "aws-cdk-lib/aws-s3";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { addStacks } from "./app-stacks.ts";
import { bundleFunction } from "./constructs/bundle.ts";
import { jobKinds, readDefinition, workflowKinds } from "./constructs/job-state-machine.ts";
import { functionTable } from "./function-table.ts";
import { Installation } from "./installation.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const cdkJson: unknown = JSON.parse(readFileSync(join(root, "cdk.json"), "utf8"));
const { context } = z.object({ context: z.record(z.string(), z.unknown()) }).parse(cdkJson);
const folder = mkdtempSync(join(tmpdir(), "holdfast-cdk-"));
afterAll(() => rmSync(folder, { recursive: true }));

const Statement = z.object({
  Effect: z.enum(["Allow", "Deny"]),
  Action: z.union([z.string(), z.array(z.string())]).transform((action) => [action].flat()),
  Resource: z.unknown(),
});
type Statement = z.infer<typeof Statement>;

let storage: Template;
let backend: Template;
beforeAll(() => {
  const stacks = synthesise({});
  storage = Template.fromStack(stacks.storage);
  backend = Template.fromStack(stacks.backend);
});

describe("what holds data", () => {
  test("keeps its logical ids: another id would be a new, empty resource", () => {
    const ids = Object.entries(resources(storage)).map(([id, { Type }]) => `${Type} ${id}`);
    expect(ids.filter((id) => !id.includes("BucketPolicy")).sort()).toEqual([
      "AWS::DynamoDB::Table CatalogTableBBEA0CBC",
      "AWS::ECR::Repository MoverImages5996CF63",
      "AWS::KMS::Key CatalogKeyC90DCC1A",
      "AWS::S3::Bucket AccessLogs8B620ECA",
      "AWS::S3::Bucket RepositoriesCC43A267",
    ]);
  });

  test("is retained when its stack is deleted or a resource is replaced", () => {
    for (const [id, resource] of Object.entries(resources(storage))) {
      if (resource.Type === "AWS::S3::BucketPolicy") continue;
      expect([id, resource.DeletionPolicy, resource.UpdateReplacePolicy]).toEqual([
        id,
        "Retain",
        "Retain",
      ]);
    }
  });

  test("no bucket is public or answers without TLS 1.2", () => {
    const buckets = storage.findResources("AWS::S3::Bucket");
    expect(Object.keys(buckets)).toHaveLength(2);
    for (const id of Object.keys(buckets)) {
      expect(buckets[id]?.["Properties"]).toMatchObject({
        PublicAccessBlockConfiguration: {
          BlockPublicAcls: true,
          BlockPublicPolicy: true,
          IgnorePublicAcls: true,
          RestrictPublicBuckets: true,
        },
      });
      storage.hasResourceProperties("AWS::S3::BucketPolicy", {
        Bucket: { Ref: id },
        PolicyDocument: {
          Statement: Match.arrayWith([
            Match.objectLike({
              Effect: "Deny",
              Action: "s3:*",
              Condition: { Bool: { "aws:SecureTransport": "false" } },
            }),
            Match.objectLike({
              Effect: "Deny",
              Action: "s3:*",
              Condition: { NumericLessThan: { "s3:TlsVersion": 1.2 } },
            }),
          ]),
        },
      });
    }
  });

  test("repositories are versioned, and the bucket refuses a put that could overwrite", () => {
    storage.hasResourceProperties("AWS::S3::Bucket", {
      VersioningConfiguration: { Status: "Enabled" },
      LoggingConfiguration: Match.objectLike({}),
    });
    storage.hasResourceProperties("AWS::S3::BucketPolicy", {
      PolicyDocument: {
        Statement: Match.arrayWith([
          Match.objectLike({
            Sid: "CreateOnly",
            Effect: "Deny",
            Principal: { AWS: "*" },
            Action: "s3:PutObject",
            Condition: { Null: { "s3:if-none-match": "true" } },
          }),
        ]),
      },
    });
  });

  test("no rule of the bucket removes a current object", () => {
    for (const bucket of Object.values(storage.findResources("AWS::S3::Bucket"))) {
      const text = JSON.stringify(bucket);
      if (text.includes("VersioningConfiguration")) expect(text).not.toContain("ExpirationInDays");
    }
  });

  test("the catalog has point-in-time recovery, its own key and no way to be deleted", () => {
    storage.hasResourceProperties("AWS::DynamoDB::Table", {
      PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true },
      SSESpecification: Match.objectLike({ SSEEnabled: true, SSEType: "KMS" }),
      DeletionProtectionEnabled: true,
      BillingMode: "PAY_PER_REQUEST",
      KeySchema: [
        { AttributeName: "PK", KeyType: "HASH" },
        { AttributeName: "SK", KeyType: "RANGE" },
      ],
      GlobalSecondaryIndexes: [
        Match.objectLike({ IndexName: "GSI1", Projection: { ProjectionType: "ALL" } }),
      ],
    });
  });
});

describe("rights", () => {
  test("nothing is allowed by a wildcard action, nor all of a service", () => {
    for (const statement of allStatements()) {
      if (statement.Effect === "Deny") continue;
      for (const action of statement.Action) expect(action).toMatch(/^[a-z0-9]+:[A-Za-z]+$/);
    }
  });

  test("a mover may create and read objects, and do nothing else with them", () => {
    const actions = moverStatements().flatMap(({ Action }) => Action);
    expect(actions.filter((action) => action.startsWith("s3:")).sort()).toEqual([
      "s3:GetObject",
      "s3:ListBucket",
      "s3:PutObject",
    ]);
  });

  test("nobody in these stacks may remove an object or change how the bucket keeps them", () => {
    for (const { Effect, Action } of allStatements()) {
      if (Effect === "Deny") continue;
      for (const action of Action) {
        expect(action).not.toMatch(/^s3:(Delete|PutBucket|PutLifecycle|PutObject.+|Bypass)/);
      }
    }
  });

  test("a mover's task has no rights but those of its site's policy", () => {
    const roles = Object.entries(backend.findResources("AWS::IAM::Role"));
    const [taskRole] = roles.filter(([id]) => /TaskTaskRole/.test(id)).map(([id]) => id);
    expect(taskRole).toBeDefined();
    for (const policy of Object.values(backend.findResources("AWS::IAM::Policy"))) {
      expect(JSON.stringify(policy["Properties"]?.Roles)).not.toContain(taskRole);
    }
  });

  test("movers and functions scan no table and pass no role but the schedules' to the scheduler", () => {
    const allowed = allStatements().filter(({ Effect }) => Effect === "Allow");
    expect(allowed.flatMap(({ Action }) => Action)).not.toContain("dynamodb:Scan");
    const passing = allowed.filter(({ Action }) => Action.includes("iam:PassRole"));
    expect(passing).toHaveLength(1);
    expect(JSON.stringify(passing[0]?.Resource)).toContain("SchedulesRole");
  });
});

describe("state machines", () => {
  test.each(workflowKinds)("%s is the ASL file, with every placeholder a function", (kind) => {
    const text = readDefinition(root, kind);
    const machines = backend.findResources("AWS::StepFunctions::StateMachine", {
      Properties: { StateMachineName: `holdfast-${kind}` },
    });
    const [machine] = Object.values(machines);
    expect(Object.keys(machines)).toHaveLength(1);
    expect(machine?.["Properties"].DefinitionString).toBe(text);
    const placeholders = [...text.matchAll(/\$\{(\w+)\}/g)].map(([, name]) => name);
    const substitutions = machine?.["Properties"].DefinitionSubstitutions;
    expect(Object.keys(substitutions).sort()).toEqual([...new Set(placeholders)].sort());
    for (const [name, arn] of Object.entries(substitutions)) {
      expect(JSON.stringify(arn)).toContain(`ControlPlane${name}Function`);
    }
  });

  test("ends of jobs' executions that are no success go to the function that cleans up after them", () => {
    const [rule, ...more] = Object.values(backend.findResources("AWS::Events::Rule"));
    expect(more).toEqual([]);
    const { EventPattern, Targets, EventBusName } = rule?.["Properties"] ?? {};
    expect(EventBusName).toBeUndefined();
    expect(EventPattern).toMatchObject({
      source: ["aws.states"],
      "detail-type": ["Step Functions Execution Status Change"],
      detail: { status: ["FAILED", "TIMED_OUT", "ABORTED"] },
    });
    const watched = JSON.stringify(EventPattern.detail.stateMachineArn);
    for (const kind of jobKinds) expect(watched).toContain(`:stateMachine:holdfast-${kind}`);
    expect(watched).not.toContain("holdfast-recover");
    expect(JSON.stringify(Targets)).toContain("ControlPlaneRecoverJobFunction");
  });

  test("log no execution data, which has the task tokens in it", () => {
    for (const machine of Object.values(
      backend.findResources("AWS::StepFunctions::StateMachine"),
    )) {
      expect(machine["Properties"].LoggingConfiguration.IncludeExecutionData).toBe(false);
    }
  });
});

describe("functions and movers", () => {
  test("every function of the table is deployed on Node 24 with settings that parse", () => {
    const lambdas = Object.values(backend.findResources("AWS::Lambda::Function"));
    expect(lambdas).toHaveLength(functionTable.length);
    for (const { Properties: properties } of lambdas) {
      expect(properties.Runtime).toBe("nodejs24.x");
      FunctionSettings.parse(environmentOf(properties.Environment.Variables));
    }
  });

  test("the API function has the settings of all it does", () => {
    backend.hasResourceProperties("AWS::Lambda::Function", {
      Description: "Holdfast: Api",
      Environment: {
        Variables: Match.objectLike({
          SCHEDULE_GROUP: Match.anyValue(),
          SCHEDULE_ROLE_ARN: Match.anyValue(),
          SCHEDULE_TARGET_ARN: Match.anyValue(),
          API_TOKEN_PARAMETER: "/holdfast/api-token-sha256",
        }),
      },
    });
  });

  test("a mover's settings parse", () => {
    const [task] = Object.values(backend.findResources("AWS::ECS::TaskDefinition"));
    const container: unknown = task?.["Properties"].ContainerDefinitions[0];
    const { Environment } = z
      .object({ Environment: z.array(z.object({ Name: z.string(), Value: z.unknown() })) })
      .parse(container);
    const variables = Object.fromEntries(Environment.map(({ Name, Value }) => [Name, Value]));
    expect(MoverSettings.parse(environmentOf(variables))).toMatchObject({ SITE_ID: "main" });
  });

  test("a queue's work returns before the state machines give a mover up, and ends aside", () => {
    backend.hasResourceProperties("AWS::SQS::Queue", {
      QueueName: "holdfast-site-main",
      VisibilityTimeout: 45,
      RedrivePolicy: Match.objectLike({ maxReceiveCount: 1000 }),
    });
  });

  test("nothing can connect to a mover", () => {
    backend.resourceCountIs("AWS::EC2::SecurityGroupIngress", 0);
    for (const group of Object.values(backend.findResources("AWS::EC2::SecurityGroup"))) {
      expect(group["Properties"].SecurityGroupIngress).toBeUndefined();
    }
  });
});

describe("installations", () => {
  test("an on-premises site has a queue and a policy, and nothing that runs", () => {
    const template = Template.fromStack(
      synthesise({ sites: [{ siteId: "berlin", movers: "on-premises" }] }).backend,
    );
    template.resourceCountIs("AWS::ECS::Service", 0);
    template.resourceCountIs("AWS::EC2::VPC", 0);
    template.resourceCountIs("AWS::IAM::ManagedPolicy", 1);
    template.hasResourceProperties("AWS::SQS::Queue", { QueueName: "holdfast-site-berlin" });
    template.hasOutput("SiteQueueUrl-berlin".replaceAll("-", ""), {});
  });

  test("with an issuer of tokens the gateway authorises, without one the function does", () => {
    const jwt = { issuer: "https://login.example.com/", audience: ["holdfast"] };
    const template = Template.fromStack(synthesise({ jwt }).backend);
    template.hasResourceProperties("AWS::ApiGatewayV2::Route", { AuthorizationType: "JWT" });
    expect(JSON.stringify(template.toJSON())).not.toContain("API_TOKEN_PARAMETER");
    backend.hasResourceProperties("AWS::ApiGatewayV2::Route", { AuthorizationType: "NONE" });
  });

  test("an existing network is used as it is", () => {
    const network = {
      vpcId: "vpc-0123456789abcdef0",
      availabilityZones: ["eu-central-1a"],
      subnetIds: ["subnet-0123456789abcdef0"],
    };
    const template = Template.fromStack(synthesise({ network }).backend);
    template.resourceCountIs("AWS::EC2::VPC", 0);
    template.hasResourceProperties("AWS::ECS::Service", {
      NetworkConfiguration: {
        AwsvpcConfiguration: { Subnets: ["subnet-0123456789abcdef0"], AssignPublicIp: "DISABLED" },
      },
    });
  });

  test("settings that are not understood are refused", () => {
    for (const wrong of [
      { name: "Upper" },
      { sites: [] },
      { unknown: 1 },
      {
        sites: [
          { siteId: "a", movers: "ecs" },
          { siteId: "a", movers: "ecs" },
        ],
      },
    ]) {
      expect(() => Installation.parse(wrong)).toThrow();
    }
  });
});

describe("cdk-nag", () => {
  const installations: readonly [string, z.input<typeof Installation>][] = [
    ["as it comes", {}],
    [
      "two sites",
      {
        sites: [
          { siteId: "a", movers: "ecs" },
          { siteId: "b", movers: "on-premises" },
        ],
      },
    ],
    ["a known account", { account: "123456789012", region: "eu-central-1", name: "two" }],
  ];
  test.each(installations)("has no finding, %s", (_name, installation) => {
    const { app } = synthesise(installation);
    const { directory } = app.synth();
    expect(findings(directory)).toEqual([]);
  });

  test("would have one if there was reason to", () => {
    const { app, storage: stack } = synthesise({});
    new Bucket(stack, "Planted");
    expect(() => app.synth()).toThrow(/AwsSolutions-S1/);
  });
});

test("every function's bundle loads in Node and has its handler", () => {
  const files = functionTable.map(({ name, entry }) => {
    const target = join(folder, "functions", name);
    bundleFunction({ root, entry, folder: target });
    return join(target, "index.mjs");
  });
  const script = `for (const file of process.argv.slice(1)) {
    const { handler } = await import(file);
    process.stdout.write(typeof handler + "\\n");
  }`;
  const args = ["--input-type=module", "--eval", script, ...files];
  const said = execFileSync(process.execPath, args, { cwd: folder, encoding: "utf8" });
  expect(said.trim().split("\n")).toEqual(functionTable.map(() => "function"));
});

function synthesise(installation: z.input<typeof Installation>) {
  const app = new App({ context, outdir: mkdtempSync(`${folder}/`) });
  const stacks = addStacks(app, {
    installation: Installation.parse(installation),
    bundle: () => Code.fromInline("exports.handler = async () => undefined;"),
    definitionOf: (kind) => readDefinition(root, kind),
  });
  return { app, ...stacks };
}

function findings(outdir: string): readonly string[] {
  const file = join(outdir, "validation-report.json");
  if (!existsSync(file)) throw new Error("nothing was validated");
  const report = z.object({ pluginReports: z.array(z.unknown()) });
  return report
    .parse(JSON.parse(readFileSync(file, "utf8")))
    .pluginReports.map((found) => JSON.stringify(found));
}

type Resource = {
  readonly Type: string;
  readonly DeletionPolicy?: string;
  readonly UpdateReplacePolicy?: string;
};

function resources(template: Template): Readonly<Record<string, Resource>> {
  return template.toJSON()["Resources"];
}

/** Of every policy document in both stacks, resource policies included. */
function allStatements(): readonly Statement[] {
  return [storage, backend].flatMap((template) => statementsIn(template.toJSON()));
}

function moverStatements(): readonly Statement[] {
  return statementsIn(backend.findResources("AWS::IAM::ManagedPolicy"));
}

function statementsIn(value: unknown): readonly Statement[] {
  if (typeof value !== "object" || value === null) return [];
  if ("PolicyDocument" in value) {
    const document = z.object({ Statement: z.array(Statement) });
    return document.parse(value.PolicyDocument).Statement;
  }
  return Object.values(value).flatMap(statementsIn);
}

/** What CloudFormation fills in counts as some text. */
function environmentOf(variables: Readonly<Record<string, unknown>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(variables).map(([name, value]) => [
      name,
      typeof value === "string" ? value : "filled-in",
    ]),
  );
}
