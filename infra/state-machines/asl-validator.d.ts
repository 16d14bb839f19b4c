/** The part of asl-validator that is used; the package has no types of its own. */
declare module "asl-validator" {
  const validate: (definition: unknown) => {
    readonly isValid: boolean;
    readonly errorsText: () => string;
  };
  export default validate;
}
