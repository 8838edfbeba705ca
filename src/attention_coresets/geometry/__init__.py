"""Geometry of point sets, for whoever needs it: enclosing ball and ellipsoid, linear maps, factorisations, coverage."""
