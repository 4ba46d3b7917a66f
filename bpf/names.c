/* The maps and types of names.h by themselves: the runtime makes the maps from
 * this object, for all monitors to share.
 */
#define MAPS_ALONE
#include "names.h"
