import { z } from "zod";

/** What differs between installations. Comes from the CDK context key `holdfast`, in cdk.json or as `-c holdfast='{…}'`. */
export const Installation = z.strictObject({
  /** Starts the names of what needs a fixed one; two installations in one account differ in it. */
  name: z
    .string()
    .regex(/^[a-z][a-z0-9-]{0,20}$/, "a lower-case letter, then up to 20 letters, digits, dashes")
    .default("holdfast"),
  account: z
    .string()
    .regex(/^\d{12}$/)
    .optional(),
  region: z.string().min(1).optional(),
  /** Every site has a queue. `ecs`: movers run in this account. `on-premises`: they run elsewhere, with the site's policy. */
  sites: z
    .array(
      z.strictObject({
        siteId: z.string().regex(/^[a-z0-9][a-z0-9-]{0,40}$/),
        movers: z.enum(["ecs", "on-premises"]),
        /**
         * Movers that always run. With 0 nothing is paid while idle, but the first task after hours of rest can wait up to
         * 15 minutes (SQS reports a queue that was idle that late), longer than jobs wait for a mover today.
         */
        moversMin: z.int().min(0).max(100).default(1),
        /** Movers at most, each with 4 tasks at once. */
        moversMax: z.int().min(1).max(100).default(4),
      }),
    )
    .min(1)
    .max(50)
    .default([{ siteId: "main", movers: "ecs", moversMin: 1, moversMax: 4 }])
    .refine((sites) => new Set(sites.map((site) => site.siteId)).size === sites.length, {
      message: "each siteId may occur once",
    }),
  /** Where the movers of `ecs` sites run. Undefined: a VPC of their own with public subnets and no way in. */
  network: z
    .strictObject({
      vpcId: z.string(),
      availabilityZones: z.array(z.string()).min(1),
      subnetIds: z.array(z.string()).min(1),
    })
    .optional(),
  /** Who issues the API's tokens. Undefined: the API checks one token of its own, whose hash is in the parameter store. */
  jwt: z
    .strictObject({ issuer: z.url({ protocol: /^https$/ }), audience: z.array(z.string()).min(1) })
    .optional(),
});
export type Installation = z.infer<typeof Installation>;
export type Site = Installation["sites"][number];
