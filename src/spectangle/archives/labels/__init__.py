"""Labels of stars: tables of anybody, the catalogues of APOGEE and GALAH, and how columns become labels."""
