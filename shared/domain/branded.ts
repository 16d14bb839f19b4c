declare const brand: unique symbol;

/** A string that only its parser can make, so that ids of different kinds never mix. */
export type Branded<Name extends string> = string & { readonly [brand]: Name };
